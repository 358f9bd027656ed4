--#include clock end_task json lease
-- Queue a task again that is open in the ledger and has no message on the broker.
--
-- list      the message becomes the first of it;  task  its ledger key
-- seen      the record as the caller read it;  record  the record from now on (JSON)
-- max_losses  losses and deaths of workers after which it is quarantined
-- term      the term of the caller's lease, or ''
-- Returns 'resent'; 'quarantined' when it was lost too often; 'changed' when the record has changed since (the task has
-- ended, or was sent again): then nothing was changed.
-- Errors: STALE when the lease has another term.

local key = {
    lease = KEYS[1], totals = KEYS[2], current = KEYS[3], minutes = KEYS[4], hours = KEYS[5], figures = KEYS[6],
    attempts = KEYS[7], dead = KEYS[8], graves = KEYS[9], ended = KEYS[10], list = KEYS[11], task = KEYS[12],
}
local arg = {
    task_id = ARGV[1], seen = ARGV[2], record = ARGV[3], message = ARGV[4], lane = ARGV[5], level = ARGV[6],
    queue = ARGV[7], max_losses = ARGV[8], why = ARGV[9], retention = ARGV[10], term = ARGV[11],
}

local refusal = stale(key.lease, arg.term)
if refusal then return refusal end
if redis.call('GET', key.task) ~= arg.seen then return 'changed' end
local now = clock()
local story = read_story(redis.call('HGET', key.attempts, 'story|' .. arg.task_id))
story[#story + 1] = {math.floor(now), '', arg.why}
if #story > tonumber(arg.max_losses) then
    local task = {
        id = arg.task_id, key = key.task, outcome = 'quarantined', worker = '', queue = arg.queue, at = now,
        error = 'it was lost ' .. times(#story), wait_ms = '', run_ms = '', lane = arg.lane,
        level = tonumber(arg.level), message = arg.message, story = story,
        record = with_value(arg.record, 'state', '"quarantined"'),
    }
    check_end(key, task, now)
    end_task(key, task, arg.retention)
    return 'quarantined'
end
-- A key of another type fails here, before the first write.
redis.call('LLEN', key.list)
redis.call('HSET', key.attempts, arg.task_id, #story, 'story|' .. arg.task_id, cjson.encode(story))
redis.call('SET', key.task, arg.record)
redis.call('RPUSH', key.list, arg.message)
return 'resent'
