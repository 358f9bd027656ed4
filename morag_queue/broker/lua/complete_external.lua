--#include clock end_task ended_record
-- End a task that ran on a worker without the agent: close its ledger entry and count it.
--
-- seen     the open record as the caller read it
-- outcome  completed | failed | cancelled
-- worker, wait_ms, run_ms, their buckets   '' = not known
-- Returns 1; 0 when the record has changed since (the task has ended, or was sent again): then nothing was changed.

local key = {
    totals = KEYS[1], minutes = KEYS[2], hours = KEYS[3], figures = KEYS[4], attempts = KEYS[5], dead = KEYS[6],
    graves = KEYS[7], ended = KEYS[8], task = KEYS[9],
}
local arg = {
    task_id = ARGV[1], seen = ARGV[2], outcome = ARGV[3], worker = ARGV[4], queue = ARGV[5], retention = ARGV[6],
    wait_ms = ARGV[7], wait_bucket = ARGV[8], run_ms = ARGV[9], run_bucket = ARGV[10],
}

if redis.call('GET', key.task) ~= arg.seen then return 0 end
local now = clock()
check_end(key, now)
local task = {
    id = arg.task_id, key = key.task, at = now, error = '',
    outcome = arg.outcome, worker = arg.worker, queue = arg.queue,
    wait_ms = arg.wait_ms, wait_bucket = arg.wait_bucket, run_ms = arg.run_ms, run_bucket = arg.run_bucket,
    entry = arg.seen, lane = field(arg.seen, 'lane'), level = tonumber((field(arg.seen, 'level'))),
}
task.record = ended_record(arg.seen, task, now)
end_task(key, task, arg.retention)
return 1
