-- Read what routing needs of the fleet. A producer reads it every few seconds, and redis-py takes longer for a thousand
-- short replies than the server for the rest: so each hash and set is returned as texts, JSON arrays of its elements.
--
-- mailboxes  kombu's set of the nodes with remote control
-- with_loads '1': also what each worker holds, and the names of the workers' lanes
-- Returns {now s, now us, corrections, incarnations, beats, cordons, paused, mailboxes, held, lanes}; the last seven are
-- lists of texts.

local key = {
    incarnations = KEYS[1], beats = KEYS[2], cordons = KEYS[3], paused = KEYS[4], corrections = KEYS[5],
    held = KEYS[6], lanes = KEYS[7],
}
local arg = {mailboxes = ARGV[1], with_loads = ARGV[2]}

local ITEMS = 500  -- of one text: it is decoded in one go, in less than a millisecond

local function texts(items)
    local found = {}
    for first = 1, #items, ITEMS do
        found[#found + 1] = cjson.encode({unpack(items, first, math.min(first + ITEMS - 1, #items))})
    end
    return found
end

local time = redis.call('TIME')
local answer = {time[1], time[2], redis.call('GET', key.corrections) or ''}
for _, name in ipairs({'incarnations', 'beats', 'cordons'}) do
    answer[#answer + 1] = texts(redis.call('HGETALL', key[name]))
end
answer[#answer + 1] = texts(redis.call('SMEMBERS', key.paused))
-- A login that may not read it learns nothing of workers without the agent.
local mailboxes = redis.pcall('SMEMBERS', arg.mailboxes)
answer[#answer + 1] = texts(mailboxes.err and {} or mailboxes)
local with_loads = arg.with_loads == '1'
answer[#answer + 1] = with_loads and texts(redis.call('HGETALL', key.held)) or {}
answer[#answer + 1] = with_loads and texts(redis.call('SMEMBERS', key.lanes)) or {}
return answer
