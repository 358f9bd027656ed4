--#include args
-- Scan a part of the server's keys for ours and for those whose names start like one of our lanes. Reads only.
--
-- No KEYS: it goes through all of them, so that the names of 200,000 ledger entries stay in the server.
-- count      keys per call
-- prefix     of our own keys
-- families   JSON array: prefixes of our own keys that are too many to report
-- lanes      the shared lanes, with their prefix
-- Returns {next cursor ('0' at the end), number of keys, {name, type, name, type…}}

local arg = {cursor = ARGV[1], count = ARGV[2], prefix = ARGV[3], families = ARGV[4], lanes = rest(ARGV, 5)}
local families = cjson.decode(arg.families)

local function has_prefix_of(key, prefixes)
    for _, prefix in ipairs(prefixes) do
        if key:sub(1, #prefix) == prefix then return true end
    end
    return false
end

local function is_wanted(key)
    if key:sub(1, #arg.prefix) == arg.prefix then return not has_prefix_of(key, families) end
    return has_prefix_of(key, arg.lanes)
end

local answer = redis.call('SCAN', arg.cursor, 'COUNT', arg.count)
local found = {}
for _, key in ipairs(answer[2]) do
    local kind = is_wanted(key) and redis.pcall('TYPE', key).ok  -- nil where this login may not read the key
    if kind then
        found[#found + 1] = key
        found[#found + 1] = kind
    end
end
return {answer[1], #answer[2], found}
