-- Records in the variable part of KEYS and ARGV.

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
