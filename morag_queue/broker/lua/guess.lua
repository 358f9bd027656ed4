-- About where in a list a message of a known enqueue time lies: a list is nearly in that order. Reads only.
--
-- KEYS[1] the list   ARGV[1] enqueued at, seconds since the epoch
-- Returns an index counted from the end where the next to run is (-1); the list may be ordered otherwise, so look.

local wanted, length = tonumber(ARGV[1]), redis.call('LLEN', KEYS[1])
local low, high = 1, length  -- depth from the end; the deeper, the later it was queued
while low < high do
    local middle = math.floor((low + high) / 2)
    local raw = redis.call('LINDEX', KEYS[1], -middle) or ''
    local at = tonumber(raw:match('"enqueued_at": ([%d.]+)'))
    if at and at < wanted then low = middle + 1 else high = middle end
end
return -low
