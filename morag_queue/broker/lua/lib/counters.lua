-- Counters by minute, by hour and of all time.

local MINUTE_TTL, HOUR_TTL = 25 * 3600, 32 * 86400  -- a day and an hour of grace; a month

-- Completes key.minutes and key.hours, which are prefixes, by the number of the minute and hour.
local function name_counters(key, now)
    key.minutes, key.hours = key.minutes .. math.floor(now / 60), key.hours .. math.floor(now / 3600)
end

-- Adds to counters; `counts` is {name, number, name, number…}. Sets the expiry when the first one is new, since the
-- whole key may be new then.
local function count(counters, counts, ttl)
    for i = 1, #counts, 2 do
        local value = redis.call('HINCRBY', counters, counts[i], counts[i + 1])
        if i == 1 and ttl and value == tonumber(counts[2]) then redis.call('EXPIRE', counters, ttl) end
    end
end

-- Counts one end. `task`: outcome, worker, queue, wait_ms, wait_bucket, run_ms, run_bucket; '' = not known. Without a
-- queue of ours it counts for the worker only.
local function count_end(key, task)
    local outcome, queue, wait_ms, run_ms = task.outcome, task.queue, task.wait_ms, task.run_ms
    if task.worker ~= '' then
        redis.call('HINCRBY', key.totals, outcome .. '|' .. task.worker, 1)
        if run_ms ~= '' then redis.call('HINCRBY', key.totals, 'run_ms|' .. task.worker, run_ms) end
    end
    if queue == '' then return end
    redis.call('HINCRBY', key.totals, outcome .. '||' .. queue, 1)
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
    count(key.minutes, counts, MINUTE_TTL)
    count(key.hours, counts, HOUR_TTL)
    count(key.figures, counts)
end
