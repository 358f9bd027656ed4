--#include json
-- The state of a worker's cordon (cordoned | draining | drained); '' where it has none, or one whose time is over.
-- One that cannot be read is `cordoned`: a worker out of service must not return to it by accident.
local function cordon_state(cordons_key, worker)
    local text = redis.call('HGET', cordons_key, worker)
    if not text then return '' end
    local cordon = decoded(text) or {}
    local state, ends = cordon.state, cordon['until']
    if type(state) ~= 'string' then return 'cordoned' end
    if type(ends) == 'number' and ends <= tonumber(redis.call('TIME')[1]) then return '' end
    return state
end
