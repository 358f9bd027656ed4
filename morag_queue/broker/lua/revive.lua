--#include args ids json place records undo
-- Queue ended tasks again, each in one step with its ledger record.
--
-- attempts  hash: see keys.py;  lanes  set of the worker lanes that were ever used
-- ids, tasks  prefixes of the lists of ids and of the ledger
-- undo      what the change did, see keys.py;  items  of its undo: opaque, '' = it is not undone
-- restarts  list: the target list;  task: its ledger key
--           letter: its dead letter, exactly as the caller read it, '' = it has none
--           seen: its ledger record as the caller read it, '' = none
--           message;  place: its depth in the list, '' = behind those that wait there
--           record: its new ledger record, '' = none
--           deaths, story: for the attempts: how many workers died over it, and their story (JSON), '' = reset them
--           worker_lane: the target lane if it is a worker's, else ''
-- Returns for each task in order 1, or 0 when it is no longer in `dead` or in the ledger as it was read: then nothing of
-- it was changed. The answer ends early after a few ms: the caller sends the other tasks again.
-- Invariant: a message is in dead or in a list, in exactly one of them.

local key = {
    dead = KEYS[1], graves = KEYS[2], attempts = KEYS[3], lanes = KEYS[4], ids = KEYS[5], tasks = KEYS[6],
    undo = KEYS[7], restarts = rest(KEYS, 8),
}
local arg = {retention = ARGV[1], items = ARGV[2], restarts = rest(ARGV, 3)}
local restarts = records(key.restarts, {'list', 'task'}, arg.restarts,
    {'task_id', 'letter', 'seen', 'message', 'place', 'record', 'deaths', 'story', 'worker_lane'})

local MOST_PASSED = 50000  -- as in edit_lane
local passed, shifts, answer, found, ids = 0, {}, {}, {}, {}

local function has_ended(task)
    local record = redis.call('GET', task.task) or ''
    task.is_known = record ~= ''
    if (redis.call('HGET', key.dead, task.task_id) or '') ~= task.letter then return false end
    return record == task.seen or (task.letter ~= '' and field(record, 'state') ~= 'queued')
end

local function restart(task)
    if task.place == '' then
        redis.call('LPUSH', task.list, task.message)
    else
        passed = passed + insert(task.list, task.message, tonumber(task.place), shifts)
    end
    if task.letter ~= '' then
        redis.call('HDEL', key.dead, task.task_id)
        redis.call('ZREM', key.graves, task.task_id)
    end
    redis.call('HDEL', key.attempts, task.task_id, 'story|' .. task.task_id)
    if task.story ~= '' then
        redis.call('HSET', key.attempts, task.task_id, task.deaths, 'story|' .. task.task_id, task.story)
    end
    if task.record == '' then
        redis.call('DEL', task.task)
    else
        redis.call('SET', task.task, task.record)
        if not task.is_known then ids[#ids + 1] = task.task_id end  -- it is no longer listed
    end
    if task.worker_lane ~= '' then redis.call('SADD', key.lanes, task.worker_lane) end
end

-- A key of another type fails here, before the first write.
check_undo(key.undo, arg.items)
redis.call('ZCARD', key.graves)
redis.call('HLEN', key.attempts)
redis.call('SCARD', key.lanes)
for _, task in ipairs(restarts) do redis.call('LLEN', task.list) end

local restarted = 0
for i, task in ipairs(restarts) do
    if passed > MOST_PASSED then break end
    answer[i], found[i] = 0, false
    if has_ended(task) then
        restart(task)
        answer[i], found[i], restarted = 1, true, restarted + 1
    end
end
if restarted > 0 then
    list_ids(key.ids, key.tasks, ids)
    record_undo(key.undo, arg.retention, found, arg.items)
end
return answer
