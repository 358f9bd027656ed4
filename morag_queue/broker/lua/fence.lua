--#include lease
-- Fence a worker: its next claim and its next heartbeat are refused, and it drops the messages that it holds.
--
-- incarnations  hash worker -> the one incarnation that may act under its name
-- incarnation   the one that the caller read, '' = none
-- term          the term of the caller's lease, or ''
-- Returns '' when the worker is fenced; else the incarnation that acts under its name now: then nothing was changed.
-- Errors: STALE when the lease has another term.

local key = {incarnations = KEYS[1], lease = KEYS[2]}
local arg = {worker = ARGV[1], incarnation = ARGV[2], term = ARGV[3]}

local refusal = stale(key.lease, arg.term)
if refusal then return refusal end
local acting = redis.call('HGET', key.incarnations, arg.worker) or ''
if acting ~= arg.incarnation then return acting end
redis.call('HSET', key.incarnations, arg.worker, 'fenced')
return ''
