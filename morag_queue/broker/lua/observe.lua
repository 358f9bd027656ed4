--#include args
-- Read one snapshot of the fleet: workers, the length of each lane by level, and the ends of each list; never the
-- backlog.
--
-- prefix, sep   lists are named prefix .. lane [.. sep .. level]
-- depth         messages to read at each end of a shared list; of a worker's, only the oldest is read
-- shared_lanes  their names; those of workers come from `lanes`
-- Returns {now s, now us, what each of KEYS holds ('' in the place of lanes), mailboxes, {lane, {lengths}, {ends}}…}
-- An end is {oldest…, newest…}, both towards the middle, no message twice. Large bodies are left out. In the place of a
-- key of another type is the error.

local key = {
    workers = KEYS[1], beats = KEYS[2], cordons = KEYS[3], incarnations = KEYS[4], held = KEYS[5], paused = KEYS[6],
    pauses = KEYS[7], totals = KEYS[8], lease = KEYS[9], corrections = KEYS[10], lanes = KEYS[11],
}
local arg = {prefix = ARGV[1], sep = ARGV[2], depth = ARGV[3], shared_lanes = rest(ARGV, 4)}

local LEVELS, depth = 9, tonumber(arg.depth)
local time = redis.call('TIME')
local answer = {time[1], time[2]}
for _, name in ipairs({'workers', 'beats', 'cordons', 'incarnations', 'held'}) do
    answer[#answer + 1] = redis.pcall('HGETALL', key[name])
end
answer[#answer + 1] = redis.pcall('SMEMBERS', key.paused)
answer[#answer + 1] = redis.pcall('HGETALL', key.pauses)
answer[#answer + 1] = redis.pcall('HGETALL', key.totals)
answer[#answer + 1] = redis.pcall('GET', key.lease) or ''
answer[#answer + 1] = redis.pcall('GET', key.corrections) or ''
local worker_lanes = redis.pcall('SMEMBERS', key.lanes)
answer[#answer + 1] = worker_lanes.err and worker_lanes or ''
-- kombu's; a login that may not read it learns nothing of workers without the agent.
local mailboxes = redis.pcall('SMEMBERS', arg.prefix .. '_kombu.binding.celery.pidbox')
answer[#answer + 1] = mailboxes.err and {} or mailboxes

local BODY = '{"body": "'
local LARGEST = 1000000  -- bytes beside the body; Celery writes about 1,000: a larger message counts as not Celery's
local function without_body(raw)
    if #raw < 4096 then return raw end
    local last = raw:sub(1, #BODY) == BODY and raw:find('"', #BODY + 1, true)
    if last and raw:byte(last - 1) ~= 92 then raw = BODY .. raw:sub(last) end  -- an escaped quote: it is not base64
    return #raw <= LARGEST and raw or ''
end

local function ends(list, length, oldest, newest)
    local found = {}
    local chunk = redis.call('LRANGE', list, -oldest, -1)
    for i = #chunk, 1, -1 do found[#found + 1] = without_body(chunk[i]) end
    newest = math.min(newest, length - oldest)
    if newest > 0 then
        for _, raw in ipairs(redis.call('LRANGE', list, 0, newest - 1)) do found[#found + 1] = without_body(raw) end
    end
    return found
end

local function read_lane(lane, oldest, newest)
    local lists, lengths, found = {}, {}, {}
    for level = 0, LEVELS do lists[level + 1] = arg.prefix .. lane .. (level > 0 and arg.sep .. level or '') end
    local is_empty = redis.pcall('EXISTS', unpack(lists)) == 0  -- nearly always, so that one command does
    for level = 0, LEVELS do
        local list = lists[level + 1]
        local length = is_empty and 0 or redis.pcall('LLEN', list)
        if type(length) ~= 'number' then length = 0 end  -- a key of another type: `doctor` reports it
        lengths[level + 1] = length
        found[level + 1] = length == 0 and {} or ends(list, length, oldest, newest)
    end
    answer[#answer + 1] = {lane, lengths, found}
end

for _, lane in ipairs(worker_lanes) do read_lane(lane, 1, 0) end
for _, lane in ipairs(arg.shared_lanes) do read_lane(lane, depth, depth) end
return answer
