--#include args
-- Find which of these tasks have a message in a part of a list. Reads only.
--
-- first, last  indices;  ids  task ids, as they are written in JSON
-- Returns the ids that occur there as the value of some "id": a header of the same name can make a task look present,
-- never absent.

local key = {list = KEYS[1]}
local arg = {first = ARGV[1], last = ARGV[2], ids = rest(ARGV, 3)}

local wanted, found = {}, {}
for _, id in ipairs(arg.ids) do wanted[id] = true end
for _, raw in ipairs(redis.call('LRANGE', key.list, arg.first, arg.last)) do
    for id in raw:gmatch('"id"%s*:%s*"([^"]*)"') do
        if wanted[id] then
            found[#found + 1] = id
            wanted[id] = nil
        end
    end
end
return found
