-- Ends one message: out of the worker's hands, out of the open ledger, into the figures; all or nothing.
--
-- The ledger and the broker can then never disagree: a worker killed between "done" and "noted" would make a finished
-- task look lost, and it would be sent again.
--
-- KEYS[1] unacked  [2] unacked_index  [3] held      as in claim.lua
-- KEYS[4] the task's ledger key       string
-- KEYS[5] totals                      hash, for ever
-- KEYS[6] this minute  [7] this hour  hashes, expire
-- KEYS[8] attempts                   hash  task id -> how often it was taken back from a dead worker
-- ARGV[1] tag  [2] outcome: accepted (early ack: runs on, unprotected) | retry | completed | failed | cancelled
-- ARGV[3] worker  [4] queue ('' = none of ours)  [5] the ended record (JSON)  [6] seconds to keep it
-- ARGV[7] wait ms  [8] its bucket  [9] run ms  [10] its bucket   ('' = not known)
-- ARGV[11] seconds to keep a minute  [12] an hour  [13] the task's id
-- Returns 1; 0 when the message is no longer this worker's (taken over): then nothing is counted.

local tag, outcome, worker, queue = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local was_unacked = redis.call('HDEL', KEYS[1], tag)
redis.call('ZREM', KEYS[2], tag)
if outcome == 'accepted' then return was_unacked end
local was_held = redis.call('HDEL', KEYS[3], tag)
if was_unacked + was_held == 0 then return 0 end
if outcome == 'retry' then return 1 end
redis.call('HDEL', KEYS[8], ARGV[13])

-- Only what we queued has a ledger entry; an open one has no expiry.
if redis.call('EXISTS', KEYS[4]) == 1 then
    redis.call('SET', KEYS[4], ARGV[5], 'EX', ARGV[6])
end
redis.call('HINCRBY', KEYS[5], outcome .. '|' .. worker, 1)
if ARGV[9] ~= '' then redis.call('HINCRBY', KEYS[5], 'run_ms|' .. worker, ARGV[9]) end
if queue == '' then return 1 end
redis.call('HINCRBY', KEYS[5], outcome .. '||' .. queue, 1)
for i = 6, 7 do
    redis.call('HINCRBY', KEYS[i], queue .. '|' .. outcome, 1)
    if ARGV[7] ~= '' then
        redis.call('HINCRBY', KEYS[i], queue .. '|wait_ms', ARGV[7])
        redis.call('HINCRBY', KEYS[i], queue .. '|wait|' .. ARGV[8], 1)
    end
    if ARGV[9] ~= '' and outcome == 'completed' then
        redis.call('HINCRBY', KEYS[i], queue .. '|run_ms', ARGV[9])
        redis.call('HINCRBY', KEYS[i], queue .. '|run|' .. ARGV[10], 1)
    end
    redis.call('EXPIRE', KEYS[i], ARGV[i + 5])
end
return 1
