-- Writes what was learned, and takes away what it was learned from; what came in meanwhile stays for the next time.
--
-- KEYS[1] surprises  hash   [2] corrections  string   see keys.py   [3] lease  string, JSON with "term"
-- ARGV[1] the corrections (JSON)  [2] the term of the caller's lease, or ''  [3+3i] field  [4+3i] runs  [5+3i] their sum
-- Errors: STALE when the lease has another term.

if ARGV[2] ~= '' then
    local lease = redis.call('GET', KEYS[3])
    if not lease or tostring(cjson.decode(lease).term) ~= ARGV[2] then return redis.error_reply('STALE term ' .. ARGV[2]) end
end
redis.call('SET', KEYS[2], ARGV[1])
for i = 3, #ARGV, 3 do
    local n, x = ARGV[i] .. '|n', ARGV[i] .. '|x'
    if redis.call('HINCRBY', KEYS[1], n, -ARGV[i + 1]) <= 0 then
        redis.call('HDEL', KEYS[1], n, x)
    else
        redis.call('HINCRBYFLOAT', KEYS[1], x, -ARGV[i + 2])
    end
end
return 1
