--#include args clock counters
-- Queue messages: each message and its ledger entry together, or neither; an id that is still open is refused.
--
-- lanes     set of the worker lanes that were ever used
-- messages  task: the ledger key;  list: where it goes
--           message; entry: the ledger entry (JSON, differs for each attempt at submitting); queue
--           worker_lane: the lane, where it is a worker's, else ''
-- Returns for each message 1 (queued) or 0 (that id is still open: nothing was changed). A message that this very call
-- queued before (its answer was lost on the way) counts as queued and is not pushed again, also when it has ended since.

local key = named(KEYS, 'lanes', 'minutes', 'hours', 'messages...')
local arg = named(ARGV, 'messages...')
local messages = records(key.messages, {'task', 'list'}, arg.messages, {'message', 'entry', 'queue', 'worker_lane'})

local _, now = clock()
local minute, hour = minute_key(key, now), hour_key(key, now)
-- A key of another type fails here, before the first message is queued.
redis.call('SCARD', key.lanes)
redis.call('HLEN', minute)
redis.call('HLEN', hour)
for i, message in ipairs(messages) do
    if i == 1 or message.list ~= messages[i - 1].list then redis.call('LLEN', message.list) end
end

local queued, answer = {}, {}
for i, message in ipairs(messages) do
    local entry = message.entry
    -- An ended task's record expires, an open one's does not: an ended id may be used again.
    local is_new = redis.call('SET', message.task, entry, 'NX')
    local known = not is_new and redis.pcall('GET', message.task)
    local is_ours = type(known) == 'string' and (known == entry or known:sub(-#entry - 1) == entry .. '}')
    if not is_new and not is_ours and redis.call('TTL', message.task) >= 0 then
        is_new = redis.call('SET', message.task, entry)
    end
    if is_new then
        redis.call('LPUSH', message.list, message.message)
        if message.worker_lane ~= '' then redis.call('SADD', key.lanes, message.worker_lane) end
        queued[message.queue] = (queued[message.queue] or 0) + 1
    end
    answer[i] = (is_new or is_ours) and 1 or 0
end
for queue, count in pairs(queued) do
    redis.call('HINCRBY', minute, queue .. '|arrived', count)
    redis.call('HINCRBY', hour, queue .. '|arrived', count)
end
redis.call('EXPIRE', minute, MINUTE_TTL)
redis.call('EXPIRE', hour, HOUR_TTL)
return answer
