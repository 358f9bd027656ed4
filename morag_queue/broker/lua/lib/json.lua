-- Fields of JSON text, found without decoding it.
--
-- Records and messages are changed as text: cjson would write `{}` and `[]` alike. Any spacing around the colon is
-- accepted: Python writes one blank there, pydantic and cjson none.

-- The array or object of a text, decoded; nil for any other text, and for one that is nested too deep.
local function decoded(text)
    local ok, value = pcall(cjson.decode, text or '')
    return ok and type(value) == 'table' and value or nil
end

-- A JSON string as Python writes it: cjson escapes each slash.
local function quoted(value)
    return (cjson.encode(value):gsub('\\/', '/'))
end

-- The first value of that name: its text (a string without its quotes), and the positions of its first and last byte.
-- nil for a missing name, a string with escapes, an array or an object. A quote inside a JSON string is escaped, so the
-- content of a string is never taken for a name.
local function field(text, name)
    local last_of_name, colon = 0, nil
    repeat  -- found as plain text first: a pattern takes several times as long
        last_of_name = select(2, text:find('"' .. name .. '"', last_of_name + 1, true))
        if not last_of_name then return nil end
        colon = select(2, text:find('^%s*:%s*', last_of_name + 1))
    until colon
    local first, last, value = text:find('^"([^"\\]*)"', colon + 1)
    if not first then first, last, value = text:find('^([%w.+-]+)', colon + 1) end
    return value, first, last
end

-- The text with the first value of that name replaced; `value` is JSON. Unchanged where there is no such field.
local function with_value(text, name, value)
    local _, first, last = field(text, name)
    return first and text:sub(1, first - 1) .. value .. text:sub(last + 1) or text
end

-- The text of an object with a field put first or last; `value` is JSON.
local function prepended(text, name, value)
    return '{"' .. name .. '": ' .. value .. (text:find('^{%s*}$') and '' or ', ') .. text:sub(2)
end

local function appended(text, name, value)
    return text:sub(1, -2) .. (text:find('^{%s*}$') and '' or ', ') .. '"' .. name .. '": ' .. value .. '}'
end
