-- Takes a worker's name from the incarnation that acts in it, so that whatever is left of it can change nothing more:
-- its next claim and its next beat are refused, and it gives up what it has in hand.
--
-- KEYS[1] incarnations  hash  worker -> the one incarnation that may act in its name   [2] lease
-- ARGV[1] worker  [2] the incarnation that was looked at, '' for none  [3] the term of the caller's lease, or ''
-- Returns '' when it is fenced now; else the incarnation that acts in the name meanwhile: nothing was changed.
-- Errors: STALE when the lease has another term.

if ARGV[3] ~= '' then
    local lease = redis.call('GET', KEYS[2])
    if not lease or tostring(cjson.decode(lease).term) ~= ARGV[3] then return redis.error_reply('STALE term ' .. ARGV[3]) end
end
local acting = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if acting ~= ARGV[2] then return acting end
redis.call('HSET', KEYS[1], ARGV[1], 'fenced')
return ''
