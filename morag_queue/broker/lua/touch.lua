--#include args clock
-- Keep messages from being redelivered for another visibility timeout, as if they had just been taken.
--
-- tags  delivery tags that a live worker holds
-- Returns how many were touched. One that was acknowledged meanwhile stays gone.

local key = {unacked = KEYS[1], unacked_index = KEYS[2]}
local arg = {tags = rest(ARGV, 1)}

local now, count = string.format('%.6f', clock()), 0
for _, tag in ipairs(arg.tags) do
    if redis.call('HEXISTS', key.unacked, tag) == 1 and redis.call('ZSCORE', key.unacked_index, tag) then
        redis.call('ZADD', key.unacked_index, 'XX', now, tag)
        count = count + 1
    end
end
return count
