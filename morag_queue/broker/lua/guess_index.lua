--#include json
-- Guess where in a list a message of a known enqueue time is: a list is nearly in that order. Reads only.
--
-- enqueued_at  seconds since the epoch
-- Returns an index counted from the end where the next to run is (-1). The list may be in another order: the caller
-- searches around the index.

local key = {list = KEYS[1]}
local arg = {enqueued_at = ARGV[1]}

local wanted, length = tonumber(arg.enqueued_at), redis.call('LLEN', key.list)
local low, high = 1, length  -- depth from the end; the deeper, the later it was queued
while low < high do
    local middle = math.floor((low + high) / 2)
    local raw = redis.call('LINDEX', key.list, -middle) or ''
    local at = tonumber((field(raw, 'enqueued_at')))
    if at and at < wanted then low = middle + 1 else high = middle end
end
return -low
