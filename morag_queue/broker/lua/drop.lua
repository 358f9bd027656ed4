-- Forgets tasks in `dead`.
--
-- KEYS[1] dead  hash  [2] graves  zset   see keys.py   KEYS[2+i] the ledger key of ARGV[1+i]
-- ARGV[1] seconds until the ledger forgets a quarantined one too  [2…] task ids
-- Returns how many there were.

local dropped = 0
for i = 2, #ARGV do
    dropped = dropped + redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
    local record = redis.call('GET', KEYS[1 + i])
    if record and record:find('"state": "quarantined"', 1, true) then redis.call('EXPIRE', KEYS[1 + i], ARGV[1]) end
end
return dropped
