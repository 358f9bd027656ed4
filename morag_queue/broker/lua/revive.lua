--#include ids
-- Take a task out of `dead` and queue it again, in one step.
--
-- list   the target list;  task  its ledger key;  lanes  set of the worker lanes that were ever used
-- ids, tasks  prefixes of the lists of ids and of the ledger
-- seen   its dead letter, exactly as the caller read it
-- record  its new ledger record, '' = none
-- deaths, story  for the attempts: how many workers died over it, and their story (JSON), '' = reset the attempts
-- worker_lane  the target lane if it is a worker's, else ''
-- Returns 1, or 0 when it is no longer in `dead` as it was read: then nothing was changed.
-- Invariant: the message is in dead or in a list, in exactly one of them.

local key = {
    dead = KEYS[1], graves = KEYS[2], attempts = KEYS[3], lanes = KEYS[4], ids = KEYS[5], tasks = KEYS[6],
    list = KEYS[7], task = KEYS[8],
}
local arg = {
    task_id = ARGV[1], seen = ARGV[2], message = ARGV[3], record = ARGV[4], deaths = ARGV[5], story = ARGV[6],
    worker_lane = ARGV[7],
}

if redis.call('HGET', key.dead, arg.task_id) ~= arg.seen then return 0 end
-- A key of another type fails here, before the first write.
redis.call('ZCARD', key.graves)
redis.call('HLEN', key.attempts)
redis.call('SCARD', key.lanes)
redis.call('LPUSH', key.list, arg.message)
redis.call('HDEL', key.dead, arg.task_id)
redis.call('ZREM', key.graves, arg.task_id)
redis.call('HDEL', key.attempts, arg.task_id, 'story|' .. arg.task_id)
if arg.story ~= '' then
    redis.call('HSET', key.attempts, arg.task_id, arg.deaths, 'story|' .. arg.task_id, arg.story)
end
if arg.record ~= '' then
    redis.call('SET', key.task, arg.record)
    list_ids(key.ids, key.tasks, {arg.task_id})  -- it is no longer listed where its last record had expired
end
if arg.worker_lane ~= '' then redis.call('SADD', key.lanes, arg.worker_lane) end
return 1
