--#include lease
-- Save the state of the balancing loop; a superseded leader saves nothing.
--
-- memory  string, JSON
-- term    the term of the caller's lease, or ''
-- Errors: STALE when the lease has another term.

local key = {memory = KEYS[1], lease = KEYS[2]}
local arg = {state = ARGV[1], term = ARGV[2]}

local refusal = stale(key.lease, arg.term)
if refusal then return refusal end
redis.call('SET', key.memory, arg.state)
return 1
