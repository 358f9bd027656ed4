--#include grave
-- Queues a task again that the ledger knows and that is nowhere on the broker.
--
-- KEYS[1] the task's ledger key  [2] the list to put it in  [3] attempts  [4] dead   as in takeback.lua   [5] lease
-- KEYS[6] graves
-- ARGV[1] the record that was looked at  [2] the record from now on (JSON)  [3] the message  [4] the task's id
-- ARGV[5] how often it may be lost or its workers die over it  [6] why  [7] the lane  [8] its level
-- ARGV[9] the term of the caller's lease, or ''  [10] seconds to keep the record of an ended task
-- Returns 'resent'; 'quarantined' when that was too often; 'changed' when the record is another one meanwhile (it has
-- ended, or someone else has sent it): then nothing was changed.
-- Errors: STALE when the lease has another term.

if ARGV[9] ~= '' then
    local lease = redis.call('GET', KEYS[5])
    if not lease or tostring(cjson.decode(lease).term) ~= ARGV[9] then return redis.error_reply('STALE term ' .. ARGV[9]) end
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'changed' end
local known = redis.call('HGET', KEYS[3], 'story|' .. ARGV[4])
local story = known and cjson.decode(known) or {}
story[#story + 1] = {tonumber(redis.call('TIME')[1]), '', ARGV[6]}
if #story > tonumber(ARGV[5]) then
    bury(KEYS[4], KEYS[6], KEYS[1], ARGV[10], ARGV[4], {
        message = ARGV[3], lane = ARGV[7], level = tonumber(ARGV[8]), state = 'quarantined', story = story,
        at = story[#story][1], reason = 'it was lost ' .. #story .. ' times',
    })
    redis.call('HDEL', KEYS[3], ARGV[4], 'story|' .. ARGV[4])
    redis.call('SET', KEYS[1], (ARGV[2]:gsub('"state": "queued"', '"state": "quarantined"', 1)))
    return 'quarantined'
end
redis.call('HSET', KEYS[3], ARGV[4], #story, 'story|' .. ARGV[4], cjson.encode(story))
redis.call('SET', KEYS[1], ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[3])
return 'resent'
