--#include args clock waiting
-- Let a worker wait for work on lanes that its last claim found empty.
--
-- Sent after CLIENT CACHING YES, on a connection with CLIENT TRACKING ON OPTIN: the next change of a key that is read
-- here, by a command that only reads, wakes the worker. So it reads nothing but its bell, its own lanes, and the shared
-- lanes if it is their tracker. GETDEL, GETEX and SET count as writes, which do not track.
--
-- waiting, tracker  of its shared lanes;  bell  its own
-- lists       its own lanes, then the shared ones; without the shared ones it cannot become the tracker
-- own         the number of lists of its own lanes
-- own_left, shared_left  messages that its last claim left there: of a paused queue, or not Celery's
-- Returns 'claim' (there is work), 'tracking' or 'waiting'.

local key = {waiting = KEYS[1], tracker = KEYS[2], bell = KEYS[3], lists = rest(KEYS, 4)}
local arg = {worker = ARGV[1], own = ARGV[2], own_left = ARGV[3], shared_left = ARGV[4]}

local function is_tracker()
    local is_new = redis.call('SET', key.tracker, arg.worker, 'NX', 'PX', TRACKER_MS)
    if not is_new and redis.call('GETEX', key.tracker) ~= arg.worker then
        redis.call('ZADD', key.waiting, string.format('%.6f', clock()), arg.worker)
        return false
    end
    redis.call('PEXPIRE', key.tracker, TRACKER_MS)
    redis.call('ZREM', key.waiting, arg.worker)
    return true
end

local reason = redis.call('GETDEL', key.bell)
local last, left, tracks = tonumber(arg.own), tonumber(arg.own_left), false
if #key.lists > last then
    tracks = is_tracker()
    if tracks then last, left = #key.lists, left + tonumber(arg.shared_left) end
end
if reason == 'work' then return 'claim' end
if redis.call('EXISTS', key.bell, unpack(key.lists, 1, last)) > 0 then
    local found = 0
    for i = 1, last do
        local length = redis.pcall('LLEN', key.lists[i])
        if type(length) == 'number' then found = found + length end  -- a key of another type: `doctor` reports it
    end
    if found ~= left then return 'claim' end
end
return tracks and 'tracking' or 'waiting'
