-- The server's clock: seconds since the epoch, exact to a microsecond.
local function clock()
    local time = redis.call('TIME')
    return time[1] + time[2] / 1000000
end
