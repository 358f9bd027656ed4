-- The server's clock.

-- Seconds since the epoch: as text with microseconds, and as a number.
local function clock()
    local time = redis.call('TIME')
    return time[1] .. '.' .. string.format('%06d', time[2]), time[1] + time[2] / 1000000
end
