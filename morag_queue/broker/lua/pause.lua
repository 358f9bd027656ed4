--#include journal
-- Pause a queue, or resume it. The set decides, because the claim reads it; the hash only explains.
--
-- paused   set of queue names;  pauses  hash queue -> JSON with "who", "at", "reason"
-- record   of the pause (JSON), '' = resume
-- note     an entry of the journal (JSON), written if the queue was not so already;  length  entries that it keeps
-- Returns 1; 0 when the queue was so already: then nothing was changed.

local key = {paused = KEYS[1], pauses = KEYS[2], journal = KEYS[3]}
local arg = {queue = ARGV[1], record = ARGV[2], note = ARGV[3], length = ARGV[4]}

redis.call('HLEN', key.pauses)  -- fails where it has another type, before the first write
check_journal(key.journal, arg.note)
local changed
if arg.record == '' then
    changed = redis.call('SREM', key.paused, arg.queue)
    redis.call('HDEL', key.pauses, arg.queue)
else
    changed = redis.call('SADD', key.paused, arg.queue)
    if changed == 1 then redis.call('HSET', key.pauses, arg.queue, arg.record) end
end
if changed == 1 then write_entry(key.journal, arg.length, arg.note) end
return changed
