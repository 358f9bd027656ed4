--#include lease
-- Write the intent of a change into the journal, before its first step.
--
-- entry  JSON;  length  entries that the journal keeps
-- term   the term of the caller's lease, or ''
-- Returns the id of the entry.
-- Errors: STALE when the lease has another term.

local key = {lease = KEYS[1], journal = KEYS[2]}
local arg = {entry = ARGV[1], length = ARGV[2], term = ARGV[3]}

local refusal = stale(key.lease, arg.term)
if refusal then return refusal end
return redis.call('XADD', key.journal, 'MAXLEN', '~', arg.length, '*', 'entry', arg.entry)
