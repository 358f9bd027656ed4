--#include json
-- Messages of Celery. A message is decoded to read it, and changed as text, see json.lua.

-- A message as Celery writes it (protocol 2), decoded; nil for anything else.
local function parse(raw)
    -- cjson accepts control characters inside strings, Python does not. One pass of a single class takes a third of the
    -- time of a search for the set; it also stops at DEL, which both accept.
    if raw:match('^%C*()') <= #raw and raw:find('[%z\1-\31]') then return nil end
    local ok, message = pcall(cjson.decode, raw)
    if not ok or type(message) ~= 'table' or type(message.body) ~= 'string' then return nil end
    if type(message.headers) ~= 'table' or type(message.properties) ~= 'table' then return nil end
    if type(message.properties.delivery_tag) ~= 'string' then return nil end
    return message
end

-- The text with the last string of that name replaced; nil where that one is not `expected`. kombu writes the
-- properties last, so the last one belongs to them and not to the arguments or headers.
local function replaced(raw, name, expected, value)
    local head, old, tail = raw:match('^(.*"' .. name .. '"%s*:%s*)("[^"]*")(.*)$')
    if not head then return nil end
    if old:sub(2, -2) ~= expected then  -- another value, or one with escapes
        local ok, found = pcall(cjson.decode, '[' .. old .. ']')
        if not ok or found[1] ~= expected then return nil end
    end
    return head .. quoted(value) .. tail
end

-- The text with a new address; nil where the message has none of the expected form. Without it, a later reject, retry
-- or restore would send the message back to the old lane.
local function readdressed(raw, message, lane)
    local info = message.properties.delivery_info
    return type(info) == 'table' and replaced(raw, 'routing_key', info.routing_key, lane) or nil
end

-- The text with a new priority; nil where the message has none. kombu writes the properties last, so the last priority
-- is theirs.
local function reprioritised(raw, message, level)
    local head, old, tail = raw:match('^(.*"priority"%s*:%s*)(%-?%d+)(.*)$')
    if not head or tonumber(old) ~= message.properties.priority then return nil end
    return head .. level .. tail
end

local function id_of(message)
    return type(message.headers.id) == 'string' and message.headers.id or ''
end

-- Whether our header says that the task needs a GPU.
local function needs_gpu(message)
    local entry = message.headers.morag_queue
    return type(entry) == 'table' and entry.requires == 'gpu'
end
