-- Some of the server's keys: ours, and those that begin like one of our lanes, with their types. Reads only.
--
-- No KEYS: it goes through all of them, a call a stretch, so that the names of 200,000 ledger entries stay in the server.
-- ARGV[1] cursor  [2] how many to look at  [3] prefix of our own keys  [4] number of families F
-- ARGV[5 … 4+F] beginnings of our own keys that are too many to tell   ARGV[5+F …] the shared lanes, with their prefix
-- Returns {next cursor ('0' at the end), {name, type, name, type…}}

local function begins(key, beginning)
    return string.sub(key, 1, #beginning) == beginning
end

local families = tonumber(ARGV[4])
local function wanted(key)
    if begins(key, ARGV[3]) then
        for i = 5, 4 + families do
            if begins(key, ARGV[i]) then return false end
        end
        return true
    end
    for i = 5 + families, #ARGV do
        if begins(key, ARGV[i]) then return true end
    end
    return false
end

local answer = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[2])
local found = {}
for _, key in ipairs(answer[2]) do
    if wanted(key) then
        local kind = redis.pcall('TYPE', key).ok  -- none where this login may not look at the key
        if kind then
            found[#found + 1] = key
            found[#found + 1] = kind
        end
    end
end
return {answer[1], found}
