-- The fence of the leader's writes.

-- An error reply where the lease has another term than the caller's; nil where the caller may write. '' is a caller
-- without a lease: no check.
local function stale(lease_key, term)
    if term == '' then return nil end
    local lease = redis.call('GET', lease_key)
    if lease and tostring(cjson.decode(lease).term) == term then return nil end
    return redis.error_reply('STALE term ' .. term)
end
