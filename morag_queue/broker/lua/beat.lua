--#include args clock cordon
-- Record one heartbeat by the server's clock, keep the held messages from expiring, and return the worker's state.
--
-- beats    hash worker -> JSON
-- workers, incarnations, cordons, unacked_index   as in claim.lua
-- figures  a JSON object;  tags  delivery tags that the worker holds
-- Returns 'ok', 'fenced' (another incarnation acts under its name), 'unknown' (the registry was lost: register again)
-- or 'draining' (it must claim nothing, and return the messages that it has not started).
-- A tag that was acknowledged meanwhile is not added again: XX touches only existing members.

local key = {beats = KEYS[1], incarnations = KEYS[2], workers = KEYS[3], unacked_index = KEYS[4], cordons = KEYS[5]}
local arg = {worker = ARGV[1], incarnation = ARGV[2], figures = ARGV[3], tags = rest(ARGV, 4)}

local acting = redis.call('HGET', key.incarnations, arg.worker)
if acting and acting ~= arg.incarnation then return 'fenced' end
if redis.call('HEXISTS', key.workers, arg.worker) == 0 then return 'unknown' end
local now = string.format('%.6f', clock())
-- Deleted first: a server out of memory lets a script continue whose first write frees some. Otherwise workers that
-- cannot write their heartbeat would look dead.
redis.call('HDEL', key.beats, arg.worker)
redis.call('HSET', key.beats, arg.worker, '{"at":' .. now .. ',' .. arg.figures:sub(2))
for _, tag in ipairs(arg.tags) do redis.call('ZADD', key.unacked_index, 'XX', now, tag) end
local cordon = cordon_state(key.cordons, arg.worker)
return (cordon == '' or cordon == 'cordoned') and 'ok' or 'draining'
