--#include message unacked
-- Find unacked messages that no worker has touched for a while, the longest untouched first. Reads only.
--
-- before  seconds: not touched since;  offset, limit  of the answer
-- Returns for each {tag, its holder's record or '', the lane it was taken from, task id, level}. Workers with the agent
-- touch their messages at every beat: these have no live owner, or belong to workers without the agent.

local key = {unacked = KEYS[1], unacked_index = KEYS[2], held = KEYS[3]}
local arg = {before = ARGV[1], offset = ARGV[2], limit = ARGV[3]}

local answer = {}
local tags = redis.call('ZRANGEBYSCORE', key.unacked_index, '-inf', '(' .. arg.before, 'LIMIT', arg.offset, arg.limit)
for _, tag in ipairs(tags) do
    local raw, lane = unwrapped(redis.call('HGET', key.unacked, tag) or '')
    local message = lane and parse(raw)
    if message then
        local level = message.properties.priority
        answer[#answer + 1] = {
            tag, redis.call('HGET', key.held, tag) or '', lane, id_of(message), type(level) == 'number' and level or 0,
        }
    end
end
return answer
