-- The variable part of KEYS and ARGV. Every script names its keys and arguments at its top, in the tables `key` and
-- `arg`; the fields of its dataclass in Python have the same names in the same order.

-- All values from the first on, as an array.
local function rest(values, first)
    if #values < 1000 then return {unpack(values, first)} end  -- Lua's stack holds 8,000
    local found = {}
    for i = first, #values do found[i - first + 1] = values[i] end
    return found
end
