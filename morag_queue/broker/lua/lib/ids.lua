-- Lists of the ids in the ledger, so that a task is found by the beginning of its id without a scan of all keys.
--
-- There is one list for each first two bytes of an id; it holds the rest of each id. An id stays listed while its record
-- exists, open or ended. When a list has grown by a part, half as many of its oldest ids are looked at: those whose
-- records have expired are dropped, the others put last. Where any were dropped, twice as many follow at once. So a list
-- stays within three times its useful length.

local PART = 32

-- Whether any of the oldest ids was dropped.
local function drop_expired(list, records_of, number)
    local oldest, records, kept = redis.call('LRANGE', list, 0, number - 1), {}, {}
    if #oldest == 0 then return false end
    for i, rest in ipairs(oldest) do records[i] = records_of .. rest end
    local are_all_kept = redis.call('EXISTS', unpack(records)) == #oldest
    for i, rest in ipairs(oldest) do
        if are_all_kept or redis.call('EXISTS', records[i]) == 1 then kept[#kept + 1] = rest end
    end
    redis.call('LTRIM', list, #oldest, -1)
    if #kept > 0 then redis.call('RPUSH', list, unpack(kept)) end
    return #kept < #oldest
end

-- `lists` and `tasks` are the prefixes of the lists and of the ledger. A list of another type is left as it is: `doctor`
-- reports it.
local function list_ids(lists, tasks, ids)
    local added = {}
    for _, id in ipairs(ids) do
        local first = id:sub(1, 2)
        local rests = added[first] or {}
        added[first], rests[#rests + 1] = rests, id:sub(3)
    end
    for first, rests in pairs(added) do
        local list, records, grown = lists .. first, tasks .. first, math.max(PART, #rests)
        local length = redis.pcall('RPUSH', list, unpack(rests))
        local is_due = type(length) == 'number' and length % PART < #rests
        if is_due and drop_expired(list, records, math.floor(grown / 2)) then drop_expired(list, records, grown * 2) end
    end
end
