-- Puts a worker out of service, further out of it, or back into it.
--
-- KEYS[1] cordons  hash  worker -> JSON with "state" and "until", as in claim.lua   [2] lease  string, JSON with "term"
-- ARGV[1] worker  [2] the new record (JSON), '' for back into service  [3] the term of the caller's lease, or ''
-- ARGV[4…] states over which it is written, '' for none
-- Returns 1 when it was written; 0 when the present state is none of these: then nothing was changed.
-- Errors: STALE when the lease has another term.

if ARGV[3] ~= '' then
    local lease = redis.call('GET', KEYS[2])
    if not lease or tostring(cjson.decode(lease).term) ~= ARGV[3] then return redis.error_reply('STALE term ' .. ARGV[3]) end
end
local present = redis.call('HGET', KEYS[1], ARGV[1])
local state = ''
if present then
    local cordon = cjson.decode(present)
    local over = type(cordon['until']) == 'number' and cordon['until'] <= tonumber(redis.call('TIME')[1])
    if not over then state = cordon.state end
end
for i = 4, #ARGV do
    if ARGV[i] == state then
        if ARGV[2] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
        return 1
    end
end
return 0
