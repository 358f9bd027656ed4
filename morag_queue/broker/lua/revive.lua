-- Takes a task out of `dead` and queues it again, in one step.
--
-- KEYS[1] dead  hash  [2] graves  zset   see keys.py   [3] attempts  hash, as in takeback.lua
-- KEYS[4] the list it goes to  [5] the task's ledger key  [6] lanes  set of the worker lanes that were ever used
-- ARGV[1] task id  [2] its grave, exactly as it was read  [3] the message  [4] its new ledger record, '' = it has none
-- ARGV[5] how many workers died over it, for the attempts  [6] their story (JSON), '' = forgotten
-- ARGV[7] the lane it goes to where that is a worker's, else ''
-- Returns 1, or 0 when it is no longer in `dead` as it was read: then nothing was changed.
-- Invariant: the message is in dead or in a list, in exactly one of them.

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('LPUSH', KEYS[4], ARGV[3])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1], 'story|' .. ARGV[1])
if ARGV[6] ~= '' then redis.call('HSET', KEYS[3], ARGV[1], ARGV[5], 'story|' .. ARGV[1], ARGV[6]) end
if ARGV[4] ~= '' then redis.call('SET', KEYS[5], ARGV[4]) end
if ARGV[7] ~= '' then redis.call('SADD', KEYS[6], ARGV[7]) end
return 1
