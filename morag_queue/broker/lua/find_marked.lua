-- Find the messages in a part of one list that contain a text. Reads only.
--
-- needle       the text, as it is written in JSON
-- first, last  indices counted from the end where the next to run is (-1)
-- Returns {index, message}…, with the indices as of now.
--
-- A caller reads from the deepest index to -1: messages that are taken or pushed meanwhile cannot be skipped.

local key = {list = KEYS[1]}
local arg = {needle = ARGV[1], first = ARGV[2], last = ARGV[3]}

local found = {}
local chunk = redis.call('LRANGE', key.list, arg.first, arg.last)
local deepest = math.max(tonumber(arg.first), -redis.call('LLEN', key.list))
for i = 1, #chunk do
    if chunk[i]:find(arg.needle, 1, true) then found[#found + 1] = {deepest + i - 1, chunk[i]} end
end
return found
