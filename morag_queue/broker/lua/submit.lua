-- Queues messages: the message and its ledger entry together, or neither; an id that is still open is refused.
--
-- KEYS[1] lanes        set of the worker lanes that were ever used
-- KEYS[2] this minute  [3] this hour   hashes, expire
-- KEYS[4+2i] the task's ledger key     KEYS[5+2i] the list to push to
-- ARGV[1] seconds to keep a minute  [2] an hour
-- ARGV[3+4i] message  [4+4i] ledger entry (JSON, differs for each attempt at submitting)  [5+4i] queue
-- ARGV[6+4i] the lane, when it is a worker's, else ''
-- Returns for each message 1 (queued) or 0 (that id is still open: nothing was changed). A message that this very call
-- queued before (its answer was lost on the way) counts as queued and is not pushed again, also when it has ended since.

-- They change nothing, but fail where a key has another type: before the first message is queued, not half way.
redis.call('SCARD', KEYS[1])
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
for i = 5, #KEYS, 2 do
    if KEYS[i] ~= KEYS[i - 2] then redis.call('LLEN', KEYS[i]) end
end

local queued, answer = {}, {}
for i = 0, (#KEYS - 3) / 2 - 1 do
    local task, list = KEYS[4 + 2 * i], KEYS[5 + 2 * i]
    local message, entry, queue, lane = ARGV[3 + 4 * i], ARGV[4 + 4 * i], ARGV[5 + 4 * i], ARGV[6 + 4 * i]
    -- An ended task's record expires, an open one's does not: an ended id may be used again.
    local fresh = redis.call('SET', task, entry, 'NX')
    local known = not fresh and redis.pcall('GET', task)
    local is_ours = type(known) == 'string' and (known == entry or known:sub(-#entry - 1) == entry .. '}')
    if not fresh and not is_ours and redis.call('TTL', task) >= 0 then
        fresh = redis.call('SET', task, entry)
    end
    if fresh then
        redis.call('LPUSH', list, message)
        if lane ~= '' then redis.call('SADD', KEYS[1], lane) end
        queued[queue] = (queued[queue] or 0) + 1
        answer[i + 1] = 1
    else
        answer[i + 1] = is_ours and 1 or 0
    end
end
for queue, count in pairs(queued) do
    redis.call('HINCRBY', KEYS[2], queue .. '|arrived', count)
    redis.call('HINCRBY', KEYS[3], queue .. '|arrived', count)
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[3], ARGV[2])
return answer
