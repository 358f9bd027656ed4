--#include clock
-- Mark a held message as cancelled, by the server's clock, and drop old marks.
--
-- revoked  zset of tags, see keys.py

local key = {revoked = KEYS[1]}
local arg = {tag = ARGV[1], keep_seconds = ARGV[2]}

local now = clock()
redis.call('ZREMRANGEBYSCORE', key.revoked, '-inf', now - arg.keep_seconds)
redis.call('ZADD', key.revoked, string.format('%.6f', now), arg.tag)
return 1
