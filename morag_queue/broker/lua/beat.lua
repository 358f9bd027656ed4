-- One heartbeat, by the server's clock; keeps the held messages alive and tells the worker what it should know.
--
-- KEYS[1] beats  hash worker -> JSON   [2] incarnations  [3] workers   as in claim.lua   [4] unacked_index
-- KEYS[5] cordons   as in claim.lua
-- ARGV[1] worker  [2] incarnation  [3] figures (a JSON object)  [4…] delivery tags in its hands
-- Returns 'ok', 'fenced' (another incarnation acts in its name), 'unknown' (the registry was lost: register again) or
-- 'draining' (it is to take nothing, and to give back what it has not begun).
-- A tag that was acknowledged meanwhile stays gone: XX touches only what is still there.

local acting = redis.call('HGET', KEYS[2], ARGV[1])
if acting and acting ~= ARGV[2] then return 'fenced' end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 'unknown' end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
-- Deleted first: a server out of memory lets a script go on whose first write frees some. Silent workers would look dead.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], '{"at":' .. now .. ',' .. ARGV[3]:sub(2))
for i = 4, #ARGV do redis.call('ZADD', KEYS[4], 'XX', now, ARGV[i]) end
local cordon = redis.call('HGET', KEYS[5], ARGV[1])
return cordon and cjson.decode(cordon).state ~= 'cordoned' and 'draining' or 'ok'
