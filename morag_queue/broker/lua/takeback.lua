--#include message
-- Takes one message out of a dead or fenced worker's hands and puts it first in a lane, as if it had just not been taken.
--
-- It gets a new delivery tag: whatever the old owner still does with the old one (ack, reject, requeue, close) then finds
-- nothing. It gets its new address too, or a later retry or restore would send it back to where it was.
--
-- KEYS[1] unacked  [2] unacked_index  [3] held   as in claim.lua
-- KEYS[4] attempts  hash  task id -> count       KEYS[5] the list to put it in
-- ARGV[1] tag  [2] the incarnation that holds it  [3] new tag  [4] the lane's name  [5] '1' when its owner died over it:
-- that is counted
-- Returns 'moved'; 'gone' when that incarnation does not hold it any more; 'early' when the task had been acknowledged
-- before it ran (its message is gone by its own choice); 'foreign' when the text is not of the expected form (left there).

local holder = redis.call('HGET', KEYS[3], ARGV[1])
if not holder or cjson.decode(holder)[2] ~= ARGV[2] then return 'gone' end
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then
    redis.call('HDEL', KEYS[3], ARGV[1])
    return 'early'
end
local raw = record:match('^%[%s*(.*})%s*,%s*"?[^"]*"?%s*,%s*"?[^"]*"?%s*%]$')
local message = raw and parse(raw)
local info = message and message.properties.delivery_info
local text = message and replaced(raw, 'delivery_tag', message.properties.delivery_tag, ARGV[3])
text = text and type(info) == 'table' and replaced(text, 'routing_key', info.routing_key, ARGV[4])
if not text then return 'foreign' end
redis.call('RPUSH', KEYS[5], text)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
local id = id_of(message)
if id ~= '' and ARGV[5] == '1' then redis.call('HINCRBY', KEYS[4], id, 1) end
return 'moved'
