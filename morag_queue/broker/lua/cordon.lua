--#include args cordon journal lease waiting
-- Put a worker out of service, further out of it, or back into it.
--
-- cordons  hash worker -> JSON with "state" and "until"
-- bells    see wait.lua: the worker claims again, and learns of its state
-- record   the new cordon (JSON), '' = back into service
-- term     the term of the caller's lease, or ''
-- note     an entry of the journal (JSON), written with the change, '' = none;  length  entries that it keeps
-- over     the states over which it may be written, '' = in service
-- Returns 1; 0 when the present state is none of these: then nothing was changed.
-- Errors: STALE when the lease has another term.

local key = {cordons = KEYS[1], bells = KEYS[2], lease = KEYS[3], journal = KEYS[4]}
local arg = {
    worker = ARGV[1], record = ARGV[2], term = ARGV[3], note = ARGV[4], length = ARGV[5], over = rest(ARGV, 6),
}

local refusal = stale(key.lease, arg.term)
if refusal then return refusal end
check_journal(key.journal, arg.note)
local present = cordon_state(key.cordons, arg.worker)
for _, state in ipairs(arg.over) do
    if state == present then
        if arg.record == '' then
            redis.call('HDEL', key.cordons, arg.worker)
        else
            redis.call('HSET', key.cordons, arg.worker, arg.record)
        end
        write_entry(key.journal, arg.length, arg.note)
        ring(key.bells, arg.worker, 'work')
        return 1
    end
end
return 0
