--#include clock json
-- Take, renew or give up the lease: one leader per fleet, by the server's clock alone. Each lease that is taken gets a
-- new term; every write of a leader names its term, so a leader whose lease has
-- expired changes nothing.
--
-- lease    string, JSON {"holder", "term", "who", "verb", "since", "until"}; it expires with the lease
-- terms    string, the last term; it never expires, or a term could be given twice
-- watched  string, the user who ran `watch` last; `doctor` expects a leader for such a fleet
-- action   take | renew | give_up;  term  the holder's, '' to take;  ttl_ms  until the lease expires
-- Errors: BROKEN when the last term is no number: then no later term is certain to be new.
-- Returns take: the lease in force now, the holder's or another's;  renew: the lease, or nil when it is lost;
--         give_up: 1, or 0 when it was lost.

local key = {lease = KEYS[1], terms = KEYS[2], watched = KEYS[3]}
local arg = {action = ARGV[1], holder = ARGV[2], term = ARGV[3], ttl_ms = ARGV[4], who = ARGV[5], verb = ARGV[6]}

-- A lease as Leases reads it, decoded; nil for any other text.
local function read_lease(text)
    local lease = decoded(text) or {}
    for _, name in ipairs({'holder', 'who', 'verb'}) do
        if type(lease[name]) ~= 'string' then return nil end
    end
    return type(lease.term) == 'number' and type(lease.since) == 'number' and lease or nil
end

local text = redis.call('GET', key.lease)
local lease = read_lease(text)  -- what cannot be read is nobody's lease, and is replaced
local is_own = lease and lease.holder == arg.holder and (arg.action == 'take' or tostring(lease.term) == arg.term)

if arg.action == 'give_up' then return is_own and redis.call('DEL', key.lease) or 0 end
if arg.action == 'renew' and not is_own then return nil end
if arg.action == 'take' and lease and not is_own then return text end
local now = clock()
if not is_own then
    if not (redis.call('GET', key.terms) or '0'):find('^%d+$') then
        return redis.error_reply('BROKEN ' .. key.terms .. ' is not a number')
    end
    lease = {holder = arg.holder, term = redis.call('INCR', key.terms), who = arg.who, verb = arg.verb, since = now}
end
lease['until'] = now + arg.ttl_ms / 1000
text = cjson.encode(lease)
redis.call('SET', key.lease, text, 'PX', arg.ttl_ms)
if lease.verb == 'watch' then redis.call('SET', key.watched, lease.who, 'EX', 86400) end
return text
