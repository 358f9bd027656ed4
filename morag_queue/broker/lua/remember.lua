-- Writes what the balancing loop keeps in mind; a leader that was superseded writes nothing.
--
-- KEYS[1] memory  string, JSON   [2] lease  string, JSON with "term"
-- ARGV[1] the memory  [2] the term of the caller's lease, or ''
-- Errors: STALE when the lease has another term.

if ARGV[2] ~= '' then
    local lease = redis.call('GET', KEYS[2])
    if not lease or tostring(cjson.decode(lease).term) ~= ARGV[2] then return redis.error_reply('STALE term ' .. ARGV[2]) end
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
