-- Which of these tasks have a message in a part of a list. Reads only.
--
-- KEYS[1] the list   ARGV[1] first index  [2] last index  [3…] task ids, as they stand in JSON
-- Returns the ids that occur there as the value of some "id": a header of the same name makes a task look present,
-- never absent.

local wanted, found = {}, {}
for i = 3, #ARGV do wanted[ARGV[i]] = true end
for _, raw in ipairs(redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2])) do
    for id in raw:gmatch('"id":%s*"([^"]*)"') do
        if wanted[id] then
            found[#found + 1] = id
            wanted[id] = nil
        end
    end
end
return found
