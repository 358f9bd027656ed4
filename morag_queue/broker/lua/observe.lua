-- One picture of the fleet: who is there, what each lane holds by level, and the ends of each list; never the backlog.
--
-- KEYS[1] workers  [2] beats  [3] cordons  [4] incarnations  [5] held  [6] lanes  [7] paused  [8] totals  [9] lease
-- KEYS[10] corrections
-- ARGV[1] key prefix of the lanes  [2] separator before a level  [3] how many messages of each end of a shared list
--         (of a worker's: the oldest only)  [4…] the shared lanes
-- Returns {now s, now us, workers, beats, cordons, incarnations, held, paused, totals, lease, corrections,
--          {lane, {lengths}, {ends}}…}
-- The lists' names follow from the lane names: prefix .. lane [.. separator .. level]. An end is {oldest…, newest…}, both
-- towards the middle, no message twice. Bodies are left out: a payload may be large, and nobody looks at it.

local LEVELS, depth = 9, tonumber(ARGV[3])
local time = redis.call('TIME')
local answer = {time[1], time[2]}
for i = 1, 5 do answer[#answer + 1] = redis.call('HGETALL', KEYS[i]) end
answer[#answer + 1] = redis.call('SMEMBERS', KEYS[7])
answer[#answer + 1] = redis.call('HGETALL', KEYS[8])
for i = 9, 10 do answer[#answer + 1] = redis.call('GET', KEYS[i]) or '' end
local lanes = redis.call('SMEMBERS', KEYS[6])
local worker_lanes = #lanes
for i = 4, #ARGV do lanes[#lanes + 1] = ARGV[i] end

local BODY = '{"body": "'
local function without_body(raw)
    if raw:sub(1, #BODY) ~= BODY then return raw end
    local last = raw:find('"', #BODY + 1, true)
    if not last or raw:byte(last - 1) == 92 then return raw end  -- an escaped quote: not base64, so not Celery's default
    return BODY .. raw:sub(last)
end

local function ends(key, length, oldest, newest)
    local found = {}
    local chunk = redis.call('LRANGE', key, -oldest, -1)
    for i = #chunk, 1, -1 do found[#found + 1] = without_body(chunk[i]) end
    newest = math.min(newest, length - oldest)
    if newest > 0 then
        for _, raw in ipairs(redis.call('LRANGE', key, 0, newest - 1)) do found[#found + 1] = without_body(raw) end
    end
    return found
end

for n, lane in ipairs(lanes) do
    local lengths, heads = {}, {}
    local is_shared = n > worker_lanes
    for level = 0, LEVELS do
        local key = ARGV[1] .. lane .. (level > 0 and ARGV[2] .. level or '')
        local length = redis.pcall('LLEN', key)
        if type(length) ~= 'number' then length = 0 end  -- a key of another type: `doctor` names it
        lengths[level + 1] = length
        heads[level + 1] = length == 0 and {} or ends(key, length, is_shared and depth or 1, is_shared and depth or 0)
    end
    answer[#answer + 1] = {lane, lengths, heads}
end
return answer
