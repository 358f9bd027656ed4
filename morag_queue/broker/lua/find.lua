--#include message
-- Looks for tasks in a part of one list by their id, or by how it begins. Reads only.
--
-- KEYS[1] the list
-- ARGV[1] the id or its beginning, as it stands in JSON  [2] the same, as it is  [3] '1' for the whole id only
-- ARGV[4] first index  [5] last index, both counted from the end where the next to run is (-1)  [6] at most so many
-- Returns {index, message}…, the indices as of now.
--
-- A caller looks from the deepest index to -1: what is taken or pushed meanwhile moves nothing past it unseen.

local needle, beginning, whole, first, most = ARGV[1], ARGV[2], ARGV[3] == '1', tonumber(ARGV[4]), tonumber(ARGV[6])

-- Plain text first: a message is decoded only where the text stands as the value of an "id".
local function matches(raw)
    local at = raw:find(needle, 1, true)
    while at do
        if raw:sub(math.max(1, at - 8), at - 1):find('"id":%s*"$') then
            local message = parse(raw)
            local id = message and id_of(message) or ''
            return id == beginning or not whole and id:sub(1, #beginning) == beginning
        end
        at = raw:find(needle, at + 1, true)
    end
    return false
end

local found = {}
local chunk = redis.call('LRANGE', KEYS[1], first, ARGV[5])
local deepest = math.max(first, -redis.call('LLEN', KEYS[1]))
for i = 1, #chunk do
    if matches(chunk[i]) then
        found[#found + 1] = {deepest + i - 1, chunk[i]}
        if #found >= most then break end
    end
end
return found
