--#include figures
-- Ends a task that ran on a worker without the agent, as somebody else tells it: its ledger entry is closed and it counts.
--
-- KEYS[1] the task's ledger key  string   [2] totals  [3] this minute  [4] this hour  [5] figures   as in settle.lua
-- ARGV[1] the open record that was looked at  [2] the ended record (JSON)  [3] outcome: completed | failed | cancelled
-- ARGV[4] worker ('' = not known)  [5] queue  [6] seconds to keep the record
-- ARGV[7] wait ms  [8] its bucket  [9] run ms  [10] its bucket   ('' = not known)
-- ARGV[11] seconds to keep a minute  [12] an hour
-- Returns 1; 0 when the record is another one meanwhile (it has ended, or was sent again): then nothing is counted.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local outcome, worker, queue = ARGV[3], ARGV[4], ARGV[5]
redis.call('SET', KEYS[1], ARGV[2]:sub(1, -2) .. ', "entry": ' .. ARGV[1] .. '}', 'EX', ARGV[6])
if worker ~= '' then
    redis.call('HINCRBY', KEYS[2], outcome .. '|' .. worker, 1)
    if ARGV[9] ~= '' then redis.call('HINCRBY', KEYS[2], 'run_ms|' .. worker, ARGV[9]) end
end
redis.call('HINCRBY', KEYS[2], outcome .. '||' .. queue, 1)
for i = 3, 5 do
    count_end(KEYS[i], queue, outcome, ARGV[7], ARGV[8], ARGV[9], ARGV[10])
    if i < 5 then redis.call('EXPIRE', KEYS[i], ARGV[i + 8]) end
end
return 1
