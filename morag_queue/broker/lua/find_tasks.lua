--#include message
-- Find tasks in a part of one list by their id or a prefix of it. Reads only.
--
-- needle    the id or prefix as it is written in JSON;  id  the same, as it is
-- is_whole  '1' = the whole id only
-- first, last  indices counted from the end where the next to run is (-1)
-- Returns {index of the deepest message of the part, when it was queued, index of the other end, when that was queued,
-- {index, message}…}: at most `limit` tasks, with the indices as of now. A time is seconds since the epoch as text, ''
-- where the message does not say. An empty part has the indices 0.
--
-- A caller reads from the deepest index to -1: messages that are taken or pushed meanwhile cannot be skipped.

local key = {list = KEYS[1]}
local arg = {needle = ARGV[1], id = ARGV[2], is_whole = ARGV[3], first = ARGV[4], last = ARGV[5], limit = ARGV[6]}
local limit = tonumber(arg.limit)

-- Plain text first: a message is decoded only where the text is the beginning of an "id".
local function matches(raw)
    local at = raw:find(arg.needle, 1, true)
    while at do
        if raw:sub(math.max(1, at - 16), at - 1):find('"id"%s*:%s*"$') then
            local message = parse(raw)
            local id = message and id_of(message) or ''
            return id == arg.id or arg.is_whole ~= '1' and id:sub(1, #arg.id) == arg.id
        end
        at = raw:find(arg.needle, at + 1, true)
    end
    return false
end

local chunk = redis.call('LRANGE', key.list, arg.first, arg.last)
if #chunk == 0 then return {0, '', 0, ''} end
local deepest = math.max(tonumber(arg.first), -redis.call('LLEN', key.list))
local function queued_at(raw)
    local at = field(raw, 'enqueued_at') or ''
    return at:find('^%d[%d.e+]*$') and tonumber(at) and at or ''
end
local answer = {deepest, queued_at(chunk[1]), deepest + #chunk - 1, queued_at(chunk[#chunk])}
for i = 1, #chunk do
    if matches(chunk[i]) then
        answer[#answer + 1] = {deepest + i - 1, chunk[i]}
        if #answer >= 4 + limit then break end
    end
end
return answer
