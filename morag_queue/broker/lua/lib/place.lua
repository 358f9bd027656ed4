--#include json
-- Put a message at its place among those that wait: by the time at which it was queued, not at the end.

local POPPED = 64  -- so near the end where the next to run is, it is cheaper to take the others off and put them back

-- The time of the message at that depth, 1 is the next to run; `unknown` where it names none.
local function queued_at(list, depth, unknown)
    return tonumber((field(redis.call('LINDEX', list, -depth) or '', 'enqueued_at'))) or unknown
end

-- The depth, as near to the wanted one as the times of its neighbours allow: none before it was queued later, none
-- after it earlier. A list is in the order of these times, but for messages that were put first or moved to its end.
local function place_of(list, text, wanted, length)
    local depth = math.max(1, math.min(wanted, length + 1))
    local at = tonumber((field(text, 'enqueued_at')))
    if not at then return depth end
    local low, high = depth, depth
    if depth > 1 and queued_at(list, depth - 1, at) > at then
        low, high = 1, depth - 1
        while low < high do
            local middle = math.ceil((low + high) / 2)
            if middle == 1 or queued_at(list, middle - 1, at) <= at then low = middle else high = middle - 1 end
        end
    elseif depth <= length and queued_at(list, depth, at) < at then
        low, high = depth + 1, length + 1
        while low < high do
            local middle = math.floor((low + high) / 2)
            if queued_at(list, middle, at) >= at then high = middle else low = middle + 1 end
        end
    end
    return low
end

-- Inserts the text at about the wanted depth. Returns the number of messages that Redis passed at most. `shifts` has for
-- each list how much nearer the last place was than wanted: workers have taken so many since.
local function insert(list, text, wanted, shifts)
    local length, shift = redis.call('LLEN', list), shifts[list] or 0
    local depth = place_of(list, text, wanted - shift, length)
    shifts[list] = wanted - depth
    if depth == 1 then
        redis.call('RPUSH', list, text)
    elseif depth > length then
        redis.call('LPUSH', list, text)
    elseif depth <= POPPED then
        local before = redis.call('LRANGE', list, -depth + 1, -1)
        redis.call('LTRIM', list, 0, -depth)
        redis.call('RPUSH', list, text, unpack(before))
    else
        redis.call('LINSERT', list, 'BEFORE', redis.call('LINDEX', list, -depth + 1), text)
    end
    return (depth == 1 or depth > length) and 1 or length
end
