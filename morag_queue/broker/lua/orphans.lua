--#include message
-- Messages that are taken and that no worker has touched for a while. Reads only.
--
-- KEYS[1] unacked  [2] unacked_index  [3] held   as in claim.lua
-- ARGV[1] not touched since (seconds)  [2] how many to pass over  [3] at most so many
-- Returns for each {tag, its holder's record or '', the lane it was taken from, task id, level}, the longest untouched
-- first. A worker with the agent touches what it has with every beat, so here is what is in nobody's hands; and what
-- workers without the agent have, which touch nothing.

local answer = {}
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[1], 'LIMIT', ARGV[2], ARGV[3])) do
    local record = redis.call('HGET', KEYS[1], tag)
    local raw, lane = (record or ''):match('^%[%s*(.*})%s*,%s*"?[^"]*"?%s*,%s*"([^"]*)"%s*%]$')
    local message = raw and parse(raw)
    if message then
        local level = message.properties.priority
        answer[#answer + 1] = {
            tag, redis.call('HGET', KEYS[3], tag) or '', lane, id_of(message), type(level) == 'number' and level or 0,
        }
    end
end
return answer
