-- The lease: one leader a fleet, by this server's clock alone. Each taking gets a term that was never given before; every
-- write of a leader names its term, so one that slept past its lease changes nothing when it wakes.
--
-- KEYS[1] lease  string, JSON {"holder", "term", "who", "verb", "since", "until"}; it expires with the lease
-- KEYS[2] terms  string, the last term that was given; it never expires, or a term could come back
-- KEYS[3] watched  string, who ran `watch` last; a fleet that was looked after is expected to be
-- ARGV[1] take | renew | give_up   [2] holder  [3] the holder's term ('' to take)  [4] ms to live  [5] who  [6] verb
-- Returns take: the lease that stands now, the holder's or another's;  renew: the lease, or nil when it is lost;
--         give_up: 1, or 0 when it was lost.

local does, holder, term = ARGV[1], ARGV[2], ARGV[3]
local text = redis.call('GET', KEYS[1])
local lease = text and cjson.decode(text)
local is_own = lease and lease.holder == holder and (does == 'take' or tostring(lease.term) == term)

if does == 'give_up' then return is_own and redis.call('DEL', KEYS[1]) or 0 end
if does == 'renew' and not is_own then return nil end
if does == 'take' and lease and not is_own then return text end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
if not is_own then lease = {holder = holder, term = redis.call('INCR', KEYS[2]), who = ARGV[5], verb = ARGV[6], since = now} end
lease['until'] = now + ARGV[4] / 1000
text = cjson.encode(lease)
redis.call('SET', KEYS[1], text, 'PX', ARGV[4])
if lease.verb == 'watch' then redis.call('SET', KEYS[3], lease.who, 'EX', 86400) end
return text
