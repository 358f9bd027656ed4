-- Keeps messages from being handed out again for another visibility timeout, as if they had just been taken.
--
-- KEYS[1] unacked  [2] unacked_index   as in claim.lua
-- ARGV[…] delivery tags that a live worker has
-- Returns how many were touched. One that was acknowledged meanwhile stays gone.

local time = redis.call('TIME')
local now, count = time[1] .. '.' .. string.format('%06d', time[2]), 0
for _, tag in ipairs(ARGV) do
    if redis.call('HEXISTS', KEYS[1], tag) == 1 and redis.call('ZSCORE', KEYS[2], tag) then
        redis.call('ZADD', KEYS[2], 'XX', now, tag)
        count = count + 1
    end
end
return count
