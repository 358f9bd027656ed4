-- Names for KEYS and ARGV. Every script names its keys and arguments at its top with these functions; the fields of its
-- dataclass in Python have the same names in the same order.

-- A table of the values by name. A last name that ends with '...' gets an array of all remaining values.
local function named(values, ...)
    local names, found = {...}, {}
    local last = #names
    local rest = names[last]:match('^(.*)%.%.%.$')
    if rest then
        found[rest], last = {}, last - 1
        for i = last + 1, #values do found[rest][i - last] = values[i] end
    end
    for i = 1, last do found[names[i]] = values[i] end
    return found
end

-- An array of tables made of two arrays: each record takes #key_names keys and #arg_names arguments.
local function records(keys, key_names, args, arg_names)
    local found = {}
    for n = 1, #args / #arg_names do
        local record = {}
        for i, name in ipairs(key_names) do record[name] = keys[(n - 1) * #key_names + i] end
        for i, name in ipairs(arg_names) do record[name] = args[(n - 1) * #arg_names + i] end
        found[n] = record
    end
    return found
end
