-- Pause a queue, or resume it. The set decides, because the claim reads it; the hash only explains.
--
-- paused   set of queue names;  pauses  hash queue -> JSON with "who", "at", "reason"
-- record   of the pause (JSON), '' = resume
-- Returns 1; 0 when the queue was so already: then nothing was changed.

local key = {paused = KEYS[1], pauses = KEYS[2]}
local arg = {queue = ARGV[1], record = ARGV[2]}

redis.call('HLEN', key.pauses)  -- fails where it has another type, before the first write
if arg.record == '' then
    local changed = redis.call('SREM', key.paused, arg.queue)
    redis.call('HDEL', key.pauses, arg.queue)
    return changed
end
local changed = redis.call('SADD', key.paused, arg.queue)
if changed == 1 then redis.call('HSET', key.pauses, arg.queue, arg.record) end
return changed
