--#include args clock
-- Mark a held message as cancelled, by the server's clock, and drop old marks.
--
-- revoked  zset of tags, see keys.py

local key = named(KEYS, 'revoked')
local arg = named(ARGV, 'tag', 'keep_seconds')

local seconds, now = clock()
redis.call('ZREMRANGEBYSCORE', key.revoked, '-inf', now - arg.keep_seconds)
redis.call('ZADD', key.revoked, seconds, arg.tag)
return 1
