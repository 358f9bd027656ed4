-- What a change did, for its undo: written in the step that makes the change, so that both happen or neither.

-- To be called before the first write: fails where the list has another type. `items` is '' for a change that is not
-- undone.
local function check_undo(list, items)
    if items ~= '' then redis.call('LLEN', list) end
end

-- Appends one part: what the script found of each item (false = the item was not changed), and the items, which only
-- the undo reads.
local function record_undo(list, retention, found, items)
    if items == '' then return end
    redis.call('RPUSH', list, cjson.encode(found) .. '\n' .. items)
    redis.call('EXPIRE', list, retention)
end
