--#include args
-- Register a worker under its name. Refused while another incarnation, not proved dead, acts under it.
--
-- workers   hash worker -> JSON;  record  its registration (JSON)
-- replaces  the incarnation that it may replace, '' = none
-- Returns '' when registered, else the incarnation that holds the name.

local key = named(KEYS, 'workers', 'incarnations', 'beats')
local arg = named(ARGV, 'worker', 'incarnation', 'record', 'replaces')

local acting = redis.call('HGET', key.incarnations, arg.worker)
if acting and acting ~= arg.incarnation and acting ~= arg.replaces then return acting end
redis.call('HSET', key.incarnations, arg.worker, arg.incarnation)
redis.call('HSET', key.workers, arg.worker, arg.record)
redis.call('HDEL', key.beats, arg.worker)
return ''
