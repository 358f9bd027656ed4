--#include args clock end_task
-- End a task that ran on a worker without the agent: close its ledger entry and count it.
--
-- seen     the open record as the caller read it
-- outcome  completed | failed | cancelled
-- worker, wait_ms, run_ms, their buckets   '' = not known
-- Returns 1; 0 when the record has changed since (the task has ended, or was sent again): then nothing was changed.

local key = named(KEYS, 'totals', 'minutes', 'hours', 'figures', 'attempts', 'dead', 'graves', 'task')
local arg = named(ARGV, 'task_id', 'seen', 'outcome', 'worker', 'queue', 'retention', 'wait_ms', 'wait_bucket', 'run_ms',
    'run_bucket')

if redis.call('GET', key.task) ~= arg.seen then return 0 end
local _, now = clock()
check_counters(key, now)
local task = {
    id = arg.task_id, key = key.task, outcome = arg.outcome, worker = arg.worker, queue = arg.queue, error = '', at = now,
    wait_ms = arg.wait_ms, wait_bucket = arg.wait_bucket, run_ms = arg.run_ms, run_bucket = arg.run_bucket,
    entry = arg.seen, lane = field(arg.seen, 'lane'), level = tonumber((field(arg.seen, 'level'))),
}
task.record = ended_record(arg.seen, task, now)
end_task(key, task, arg.retention)
return 1
