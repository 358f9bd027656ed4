-- Counters by minute, by hour and of all time.
--
-- A task adds to key.current only: the counts of one minute, whose number is in the field `minute`. The first count of
-- another minute folds them into those of that minute, of its hour and of all time (key.figures), so that these are
-- written once a minute. Readers add key.current.

local MINUTE_TTL, HOUR_TTL = 25 * 3600, 32 * 86400  -- a day and an hour of grace; a month

-- Names the counters that a fold writes, and fails where a key to be written has another type. To be called before the
-- first write, and before `count`. key.minutes and key.hours are prefixes.
local function check_counters(key, now)
    key.this_minute = math.floor(now / 60)
    key.counted_minute = tonumber(redis.call('HGET', key.current, 'minute') or nil)
    if not key.counted_minute or key.counted_minute == key.this_minute then return end
    key.folded = {
        key.minutes .. key.counted_minute, key.hours .. math.floor(key.counted_minute / 60), key.figures,
    }
    for _, counters in ipairs(key.folded) do redis.call('HLEN', counters) end
end

-- Adds to a counter. One that is no number, which only another program writes, must not stop the end of a task.
local function add(counters, name, number) redis.pcall('HINCRBY', counters, name, number) end

local function fold(key)
    local counts = redis.call('HGETALL', key.current)
    redis.call('DEL', key.current)
    for _, counters in ipairs(key.folded) do
        for i = 1, #counts, 2 do
            if counts[i] ~= 'minute' then add(counters, counts[i], counts[i + 1]) end
        end
    end
    redis.call('EXPIRE', key.folded[1], MINUTE_TTL)
    redis.call('EXPIRE', key.folded[2], HOUR_TTL)
    key.folded = nil
end

-- Adds to the counters; `counts` is {name, number, name, number…}.
local function count(key, counts)
    if key.folded then fold(key) end
    if key.counted_minute ~= key.this_minute then
        redis.call('HSET', key.current, 'minute', key.this_minute)
        key.counted_minute = key.this_minute
    end
    for i = 1, #counts, 2 do add(key.current, counts[i], counts[i + 1]) end
end

-- Counts one end. `task`: outcome, worker, queue, wait_ms, wait_bucket, run_ms, run_bucket; '' = not known. Without a
-- queue of ours it counts for the worker only.
local function count_end(key, task)
    local outcome, queue, wait_ms, run_ms = task.outcome, task.queue, task.wait_ms, task.run_ms
    if task.worker ~= '' then
        add(key.totals, outcome .. '|' .. task.worker, 1)
        if run_ms ~= '' then add(key.totals, 'run_ms|' .. task.worker, run_ms) end
    end
    if queue == '' then return end
    add(key.totals, outcome .. '||' .. queue, 1)
    local counts = {queue .. '|' .. outcome, 1}
    if wait_ms ~= '' then
        counts[3], counts[4] = queue .. '|wait_ms', wait_ms
        counts[5], counts[6] = queue .. '|wait|' .. task.wait_bucket, 1
    end
    if run_ms ~= '' and outcome == 'completed' then
        local n = #counts
        counts[n + 1], counts[n + 2] = queue .. '|run_ms', run_ms
        counts[n + 3], counts[n + 4] = queue .. '|run|' .. task.run_bucket, 1
    end
    count(key, counts)
end
