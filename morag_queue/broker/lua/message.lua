-- Shared by the scripts that handle message texts; named in the first line of such a script.
--
-- A message is never decoded and encoded again: cjson makes `{}` and `[]` one. It is read with cjson, and changed as text.

-- A message as Celery writes it, decoded; nil for anything else.
local function parse(raw)
    if raw:find('[%z\1-\31]') then return nil end  -- cjson takes them inside of strings, Python does not
    local ok, message = pcall(cjson.decode, raw)
    if not ok or type(message) ~= 'table' or type(message.body) ~= 'string' then return nil end
    if type(message.headers) ~= 'table' or type(message.properties) ~= 'table' then return nil end
    if type(message.properties.delivery_tag) ~= 'string' then return nil end
    return message
end

-- A JSON string as Python writes it: cjson would escape each slash.
local function quoted(value)
    return (cjson.encode(value):gsub('\\/', '/'))
end

-- The text with the last string of that name replaced; nil if that was not the expected one. kombu writes the properties
-- last, so the last one is theirs and not an argument's or a header's.
local function replaced(raw, name, expected, value)
    local head, old, tail = raw:match('^(.*"' .. name .. '":%s*)("[^"]*")(.*)$')
    local ok, found = pcall(cjson.decode, '[' .. (old or '') .. ']')
    if not head or not ok or found[1] ~= expected then return nil end
    return head .. quoted(value) .. tail
end

local function id_of(message)
    return type(message.headers.id) == 'string' and message.headers.id or ''
end
