-- Find ids of the ledger by their beginning in a part of one list of ids, see lib/ids.lua. Reads only.
--
-- ids, tasks   prefixes of the lists of ids and of the ledger
-- list         the two bytes with which the ids of the list start;  rest  of the beginning, behind them
-- first, last  indices
-- Returns the ids that have a record, open or ended, at most `limit`.

local key = {ids = KEYS[1], tasks = KEYS[2]}
local arg = {list = ARGV[1], rest = ARGV[2], first = ARGV[3], last = ARGV[4], limit = ARGV[5]}
local rest, limit, found = arg.rest, tonumber(arg.limit), {}

for _, one in ipairs(redis.call('LRANGE', key.ids .. arg.list, arg.first, arg.last)) do
    if one:find(rest, 1, true) == 1 and redis.call('EXISTS', key.tasks .. arg.list .. one) == 1 then
        found[#found + 1] = arg.list .. one
        if #found >= limit then break end
    end
end
return found
