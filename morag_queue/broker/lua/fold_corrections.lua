--#include args lease records
-- Write the corrections, and subtract the sums they were learned from; what was added meanwhile stays for the next
-- call.
--
-- surprises, corrections  see keys.py (corrections: JSON)
-- term  the term of the caller's lease, or ''
-- sums  field; runs; log_error: their sum
-- Errors: STALE when the lease has another term.

local key = {surprises = KEYS[1], corrections = KEYS[2], lease = KEYS[3]}
local arg = {text = ARGV[1], term = ARGV[2], sums = rest(ARGV, 3)}
local sums = records({}, {}, arg.sums, {'field', 'runs', 'log_error'})

local refusal = stale(key.lease, arg.term)
if refusal then return refusal end
redis.call('HLEN', key.surprises)  -- fails where it has another type, before the first write
redis.call('SET', key.corrections, arg.text)
for _, sum in ipairs(sums) do
    local runs, log_error = sum.field .. '|n', sum.field .. '|x'
    if redis.call('HINCRBY', key.surprises, runs, -sum.runs) <= 0 then
        redis.call('HDEL', key.surprises, runs, log_error)
    else
        redis.call('HINCRBYFLOAT', key.surprises, log_error, -sum.log_error)
    end
end
return 1
