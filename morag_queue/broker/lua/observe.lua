-- One picture of the fleet: who is there, what each lane holds by level, and the head of each list; never the backlog.
--
-- KEYS[1] workers  [2] beats  [3] cordons  [4] incarnations  [5] held  [6] lanes  [7] paused  [8] totals  [9] lease
-- ARGV[1] key prefix of the lanes  [2] separator before a level  [3…] the shared lanes
-- Returns {now s, now us, workers, beats, cordons, incarnations, held, paused, totals, lease, {lane, {lengths}, {heads}}…}
-- The lists' names follow from the lane names: prefix .. lane [.. separator .. level].

local LEVELS = 9
local time = redis.call('TIME')
local answer = {time[1], time[2]}
for i = 1, 5 do answer[#answer + 1] = redis.call('HGETALL', KEYS[i]) end
answer[#answer + 1] = redis.call('SMEMBERS', KEYS[7])
answer[#answer + 1] = redis.call('HGETALL', KEYS[8])
answer[#answer + 1] = redis.call('GET', KEYS[9]) or ''
local lanes = redis.call('SMEMBERS', KEYS[6])
for i = 3, #ARGV do lanes[#lanes + 1] = ARGV[i] end
for _, lane in ipairs(lanes) do
    local lengths, heads = {}, {}
    for level = 0, LEVELS do
        local key = ARGV[1] .. lane .. (level > 0 and ARGV[2] .. level or '')
        local length = redis.pcall('LLEN', key)
        if type(length) ~= 'number' then length = 0 end  -- a key of another type: `doctor` names it
        lengths[level + 1] = length
        heads[level + 1] = length > 0 and redis.call('LINDEX', key, -1) or ''
    end
    answer[#answer + 1] = {lane, lengths, heads}
end
return answer
