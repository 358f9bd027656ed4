-- Shared by the scripts that count how a task of ours ended; named in the first line of such a script.
--
-- `figures` is a hash of one queue's fields: of a minute, of an hour, or of all time. Times are ms, '' = not known.

local function count_end(figures, queue, outcome, wait_ms, wait_bucket, run_ms, run_bucket)
    redis.call('HINCRBY', figures, queue .. '|' .. outcome, 1)
    if wait_ms ~= '' then
        redis.call('HINCRBY', figures, queue .. '|wait_ms', wait_ms)
        redis.call('HINCRBY', figures, queue .. '|wait|' .. wait_bucket, 1)
    end
    if run_ms ~= '' and outcome == 'completed' then
        redis.call('HINCRBY', figures, queue .. '|run_ms', run_ms)
        redis.call('HINCRBY', figures, queue .. '|run|' .. run_bucket, 1)
    end
end
