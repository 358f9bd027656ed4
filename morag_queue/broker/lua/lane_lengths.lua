--#include args
-- Count the messages in lanes.
--
-- prefix, sep  lists are named prefix .. lane [.. sep .. level]
-- lanes        their names
-- Returns the number in each, all levels together.

local arg = {prefix = ARGV[1], sep = ARGV[2], lanes = rest(ARGV, 3)}

local LEVELS = 9
local counts = {}
for _, lane in ipairs(arg.lanes) do
    local count = 0
    for level = 0, LEVELS do
        local length = redis.pcall('LLEN', arg.prefix .. lane .. (level > 0 and arg.sep .. level or ''))
        if type(length) == 'number' then count = count + length end  -- a key of another type: `doctor` reports it
    end
    counts[#counts + 1] = count
end
return counts
