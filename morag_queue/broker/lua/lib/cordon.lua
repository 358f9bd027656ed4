-- The state of a worker's cordon (cordoned | draining | drained); '' where it has none, or one whose time is over.
local function cordon_state(cordons_key, worker)
    local text = redis.call('HGET', cordons_key, worker)
    if not text then return '' end
    local cordon = cjson.decode(text)
    local ends = cordon['until']
    if type(ends) == 'number' and ends <= tonumber(redis.call('TIME')[1]) then return '' end
    return cordon.state
end
