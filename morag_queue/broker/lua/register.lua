-- Register a worker under its name. Refused while another incarnation, not proved dead, acts under it.
--
-- workers   hash worker -> JSON;  record  its registration (JSON)
-- replaces  the incarnation that it may replace, '' = none
-- Returns '' when registered, else the incarnation that holds the name.

local key = {workers = KEYS[1], incarnations = KEYS[2], beats = KEYS[3]}
local arg = {worker = ARGV[1], incarnation = ARGV[2], record = ARGV[3], replaces = ARGV[4]}

local acting = redis.call('HGET', key.incarnations, arg.worker)
if acting and acting ~= arg.incarnation and acting ~= arg.replaces then return acting end
redis.call('HSET', key.incarnations, arg.worker, arg.incarnation)
redis.call('HSET', key.workers, arg.worker, arg.record)
redis.call('HDEL', key.beats, arg.worker)
return ''
