-- A worker takes its name. Refused while another incarnation, not proved dead, acts in it.
--
-- KEYS[1] workers  hash worker -> JSON   [2] incarnations   [3] beats
-- ARGV[1] worker  [2] incarnation  [3] its record (JSON)  [4] the incarnation it may replace ('' = none)
-- Returns '' when registered, else the incarnation that holds the name.

local acting = redis.call('HGET', KEYS[2], ARGV[1])
if acting and acting ~= ARGV[2] and acting ~= ARGV[4] then return acting end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HDEL', KEYS[3], ARGV[1])
return ''
