-- Counters by minute, by hour and of all time.

local MINUTE_TTL, HOUR_TTL = 25 * 3600, 32 * 86400  -- a day and an hour of grace; a month

-- Sets key.minute and key.hour: key.minutes and key.hours are prefixes, completed by the number of the minute or hour.
local function name_counters(key, now)
    key.minute, key.hour = key.minutes .. math.floor(now / 60), key.hours .. math.floor(now / 3600)
end

-- Adds to one counter. A first count may be the key's first: it gets its expiry.
local function count(counters, name, number, ttl)
    local is_first = redis.call('HINCRBY', counters, name, number) == tonumber(number)
    if is_first and ttl then redis.call('EXPIRE', counters, ttl) end
end

local function count_times(counters, task)
    if task.wait_ms ~= '' then
        redis.call('HINCRBY', counters, task.queue .. '|wait_ms', task.wait_ms)
        redis.call('HINCRBY', counters, task.queue .. '|wait|' .. task.wait_bucket, 1)
    end
    if task.run_ms ~= '' and task.outcome == 'completed' then
        redis.call('HINCRBY', counters, task.queue .. '|run_ms', task.run_ms)
        redis.call('HINCRBY', counters, task.queue .. '|run|' .. task.run_bucket, 1)
    end
end

-- Counts one end. `task`: outcome, worker, queue, wait_ms, wait_bucket, run_ms, run_bucket; '' = not known. Without a
-- queue of ours it counts for the worker only.
local function count_end(key, task)
    if task.worker ~= '' then
        redis.call('HINCRBY', key.totals, task.outcome .. '|' .. task.worker, 1)
        if task.run_ms ~= '' then redis.call('HINCRBY', key.totals, 'run_ms|' .. task.worker, task.run_ms) end
    end
    if task.queue == '' then return end
    redis.call('HINCRBY', key.totals, task.outcome .. '||' .. task.queue, 1)
    local ended = task.queue .. '|' .. task.outcome
    count(key.minute, ended, 1, MINUTE_TTL)
    count(key.hour, ended, 1, HOUR_TTL)
    count(key.figures, ended, 1)
    count_times(key.minute, task)
    count_times(key.hour, task)
    count_times(key.figures, task)
end
