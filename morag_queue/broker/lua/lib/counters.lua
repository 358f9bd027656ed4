-- Counters by minute, by hour and of all time.
--
-- key.minutes and key.hours are prefixes: the number of the minute or hour by the server's clock completes them.

local MINUTE_TTL, HOUR_TTL = 25 * 3600, 32 * 86400  -- a day and an hour of grace; a month

local function minute_key(key, now)
    return key.minutes .. math.floor(now / 60)
end

local function hour_key(key, now)
    return key.hours .. math.floor(now / 3600)
end

local function add_end(counters, task)
    redis.call('HINCRBY', counters, task.queue .. '|' .. task.outcome, 1)
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
local function count_end(key, task, now)
    if task.worker ~= '' then
        redis.call('HINCRBY', key.totals, task.outcome .. '|' .. task.worker, 1)
        if task.run_ms ~= '' then redis.call('HINCRBY', key.totals, 'run_ms|' .. task.worker, task.run_ms) end
    end
    if task.queue == '' then return end
    redis.call('HINCRBY', key.totals, task.outcome .. '||' .. task.queue, 1)
    local minute, hour = minute_key(key, now), hour_key(key, now)
    add_end(minute, task)
    redis.call('EXPIRE', minute, MINUTE_TTL)
    add_end(hour, task)
    redis.call('EXPIRE', hour, HOUR_TTL)
    add_end(key.figures, task)
end
