--#include json
-- Records of `unacked` and of `held`.

-- The message's text, and its lane where that is a string, from kombu's `[message, exchange, routing key]`; nil for
-- another form. Each pattern is tried from the end, so that the time is linear also where nothing matches.
local function unwrapped(record)
    local others, lane = record:match('^%[(.*),%s*"([^"]*)"%s*%]$')
    others = others or record:match('^%[(.*),%s*null%s*%]$') or ''
    local first = others:match('^%s*()')
    local raw = others:match('^(.*})%s*,%s*"[^"]*"%s*$', first) or others:match('^(.*})%s*,%s*null%s*$', first)
    return raw, raw and lane
end

-- The holder of a message as codec.read_held reads it, decoded; nil for any other text.
local function read_holder(text)
    local holder = decoded(text) or {}
    for place = 1, 4 do
        if type(holder[place]) ~= 'string' then return nil end
    end
    local worker, incarnation, id, lane, level = unpack(holder)
    if type(level) ~= 'number' or not (level >= 0 and level <= 9) then return nil end
    return {worker = worker, incarnation = incarnation, id = id, lane = lane, level = level}
end
