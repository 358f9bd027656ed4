--#include clock end_task ended_record open_record
-- End a task that ran on a worker without the agent: close its ledger entry and count it.
--
-- seen     the open record as the caller read it
-- outcome  completed | failed | cancelled
-- worker, wait_ms, run_ms, their buckets   '' = not known
-- Returns 1; 0 when the record has changed since (the task has ended, or was sent again): then nothing was changed.

local key = {
    totals = KEYS[1], current = KEYS[2], minutes = KEYS[3], hours = KEYS[4], figures = KEYS[5], attempts = KEYS[6],
    dead = KEYS[7], graves = KEYS[8], ended = KEYS[9], task = KEYS[10],
}
local arg = {
    task_id = ARGV[1], seen = ARGV[2], outcome = ARGV[3], worker = ARGV[4], queue = ARGV[5], retention = ARGV[6],
    wait_ms = ARGV[7], wait_bucket = ARGV[8], run_ms = ARGV[9], run_bucket = ARGV[10],
}

if redis.call('GET', key.task) ~= arg.seen then return 0 end
local now, place = clock(), with_place(arg.seen)
local task = {
    id = arg.task_id, key = key.task, at = now, error = '',
    outcome = arg.outcome, worker = arg.worker, queue = arg.queue,
    wait_ms = arg.wait_ms, wait_bucket = arg.wait_bucket, run_ms = arg.run_ms, run_bucket = arg.run_bucket,
    entry = arg.seen, lane = field(place, 'lane'), level = tonumber((field(place, 'level'))),
}
check_end(key, task, now)
task.record = ended_record(arg.seen, task, now)
end_task(key, task, arg.retention)
return 1
