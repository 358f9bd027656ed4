--#include args cordon lease waiting
-- Put a worker out of service, further out of it, or back into it.
--
-- cordons  hash worker -> JSON with "state" and "until"
-- bells    see wait.lua: the worker claims again, and learns of its state
-- record   the new cordon (JSON), '' = back into service
-- term     the term of the caller's lease, or ''
-- over     the states over which it may be written, '' = in service
-- Returns 1; 0 when the present state is none of these: then nothing was changed.
-- Errors: STALE when the lease has another term.

local key = {cordons = KEYS[1], bells = KEYS[2], lease = KEYS[3]}
local arg = {worker = ARGV[1], record = ARGV[2], term = ARGV[3], over = rest(ARGV, 4)}

local refusal = stale(key.lease, arg.term)
if refusal then return refusal end
local present = cordon_state(key.cordons, arg.worker)
for _, state in ipairs(arg.over) do
    if state == present then
        if arg.record == '' then
            redis.call('HDEL', key.cordons, arg.worker)
        else
            redis.call('HSET', key.cordons, arg.worker, arg.record)
        end
        ring(key.bells, arg.worker, 'work')
        return 1
    end
end
return 0
