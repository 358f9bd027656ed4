-- Workers that wait for work on the same shared lanes. One of them, the tracker, is woken by a push to these lanes. The
-- others are woken by a worker that stops waiting, or when they look again by themselves.
-- waiting and tracker: see keys.py; bells: a prefix.

local TRACKER_MS = 2500  -- a tracker renews its record every second

-- Wakes a worker. It reads the reason: `work` waits, or it is to `track` the lanes.
local function ring(bells, worker, reason)
    redis.call('SET', bells .. worker, reason, 'EX', 30)
end

-- Appoints the next tracker, and wakes it. Where more work waits, it wakes a second worker, so that many are awake
-- after a few steps.
--
-- A worker that is dead or stopped does not look again: it is left out once it is three looks late. A worker looks
-- again after 4 ms for each that waits, but not before 0.75 s.
local function appoint_tracker(waiting, tracker, bells, now, more_waits)
    local late = 3 * math.max(0.75, 0.004 * redis.call('ZCARD', waiting))
    redis.call('ZREMRANGEBYSCORE', waiting, '-inf', now - late)
    local woken = redis.call('ZPOPMIN', waiting, more_waits and 2 or 1)
    if not woken[1] then
        redis.call('DEL', tracker)
        return
    end
    redis.call('SET', tracker, woken[1], 'PX', TRACKER_MS)
    ring(bells, woken[1], more_waits and 'work' or 'track')
    if woken[3] then ring(bells, woken[3], 'work') end
end
