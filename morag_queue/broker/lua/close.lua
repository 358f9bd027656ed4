-- Ends the ledger entry of a task that a worker without the agent has run: its result is the only word of it.
--
-- KEYS[1] the task's ledger key  [2] totals  hash, as in settle.lua
-- ARGV[1] the record that was looked at  [2] the ended record (JSON)  [3] completed | failed  [4] its queue
-- ARGV[5] seconds to keep the record
-- Returns 1; 0 when the record is another one meanwhile: then nothing was changed.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[5])
redis.call('HINCRBY', KEYS[2], ARGV[3] .. '||' .. ARGV[4], 1)
return 1
