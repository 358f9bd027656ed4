-- Records of `unacked`.

-- The message's text, and its lane where that is a string, from kombu's `[message, exchange, routing key]`; nil for
-- another form.
local function unwrapped(record)
    local raw = record:match('^%[%s*(.*})%s*,%s*"?[^"]*"?%s*,%s*"?[^"]*"?%s*%]$')
    return raw, raw and record:match('"([^"]*)"%s*%]$')
end
