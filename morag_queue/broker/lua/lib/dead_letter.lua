--#include json
-- Dead letters: tasks that do not run again by themselves. key.dead and key.graves as in keys.py.

local CAPACITY = 10000

local function times(number)
    return number == 1 and '1 time' or number .. ' times'
end

-- The story of a task, `{{at, worker, why}…}`: the rows that can be read.
local function read_story(text)
    local story = {}
    for _, row in ipairs(decoded(text) or {}) do
        local at, worker, why = unpack(type(row) == 'table' and row or {})
        local is_whole = type(worker) == 'string' and type(why) == 'string'
        if is_whole and type(at) == 'number' and math.abs(at) < 1e15 then story[#story + 1] = {at, worker, why} end
    end
    return story
end

-- Adds one (JSON), in the place of an older one of that id. At capacity the oldest is dropped; its ledger entry stays for the
-- retention time (seconds). `task_key` is the ledger key of `id`.
local function add_dead_letter(key, task_key, retention, id, at, letter)
    redis.call('HSET', key.dead, id, letter)
    redis.call('ZADD', key.graves, at, id)
    if redis.call('ZCARD', key.graves) <= CAPACITY then return end
    local oldest = redis.call('ZPOPMIN', key.graves)[1]
    redis.call('HDEL', key.dead, oldest)
    redis.call('EXPIRE', task_key:sub(1, -#id - 1) .. oldest, retention)
end
