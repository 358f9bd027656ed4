-- Find ids of the ledger by their beginning in a part of their list, see lib/ids.lua. Reads only.
--
-- ids, tasks   prefixes of the lists of ids and of the ledger
-- beginning    of the ids, at least one character
-- first, last  indices
-- Returns the ids that have a record, open or ended, at most `limit`.

local key = {ids = KEYS[1], tasks = KEYS[2]}
local arg = {beginning = ARGV[1], first = ARGV[2], last = ARGV[3], limit = ARGV[4]}

local letter, rest, found = arg.beginning:sub(1, 1), arg.beginning:sub(2), {}
for _, one in ipairs(redis.call('LRANGE', key.ids .. letter, arg.first, arg.last)) do
    if one:sub(1, #rest) == rest and redis.call('EXISTS', key.tasks .. letter .. one) == 1 then
        found[#found + 1] = letter .. one
        if #found >= tonumber(arg.limit) then break end
    end
end
return found
