-- Shared by the scripts that lay a task in `dead`; named in the first line of such a script.
--
-- `dead` and `graves` as in keys.py; `entry` is the task's ledger key, `retention` the seconds to keep an ended record.

local GRAVES = 10000

-- The oldest goes when there are too many: without its message, only its ledger entry tells of it, for its time.
local function bury(dead, graves, entry, retention, id, grave)
    redis.call('ZREM', graves, '')  -- fails where the key has another type, before anything is written
    redis.call('HSET', dead, id, cjson.encode(grave))
    redis.call('ZADD', graves, grave.at, id)
    if redis.call('ZCARD', graves) <= GRAVES then return end
    local oldest = redis.call('ZPOPMIN', graves)[1]
    redis.call('HDEL', dead, oldest)
    redis.call('EXPIRE', entry:sub(1, -#id - 1) .. oldest, retention)
end
