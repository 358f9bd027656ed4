--#include json
-- The fence of the leader's writes.

-- Returns an error reply if the lease has another term than the caller's, else nil. The term '' is not checked: the
-- caller has no lease.
local function stale(lease_key, term)
    if term == '' then return nil end
    local lease = decoded(redis.call('GET', lease_key))
    if lease and tostring(lease.term) == term then return nil end
    return redis.error_reply('STALE term ' .. term)
end
