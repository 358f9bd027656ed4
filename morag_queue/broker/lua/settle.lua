--#include args clock cordon end_task json unacked
-- Settle one message: remove it from `unacked`, close its ledger entry and count it; all or nothing.
--
-- The ledger and the broker cannot disagree: with two steps, a worker killed between them would leave a finished task
-- that looks lost and is sent again.
--
-- workers    hash worker -> its registration (JSON)
-- surprises  hash, see keys.py
-- outcome    accepted (early acknowledgement: runs on, unprotected) | retry | completed | failed | cancelled
-- queue      '' = none of ours
-- record     the ended record (JSON), kept for `retention` seconds; "ended_at" and the open "entry" are added to it
-- wait_ms, run_ms, their buckets   '' = not known
-- blame      what a failure says about its worker: none | unclear | worker
-- breaker_failures, breaker_seconds  failures in a row that open the worker's circuit breaker, and for how long
-- work, log_error_on_cpu, log_error_on_gpu  `<content type>|<requires>`, and the estimate's error; '' = do not learn
-- queues     all queues
-- Returns 1; 0 when the message is no longer this worker's: then nothing was changed.

local key = {
    unacked = KEYS[1], unacked_index = KEYS[2], held = KEYS[3], totals = KEYS[4], minutes = KEYS[5], hours = KEYS[6],
    figures = KEYS[7], attempts = KEYS[8], dead = KEYS[9], graves = KEYS[10], cordons = KEYS[11], journal = KEYS[12],
    surprises = KEYS[13], workers = KEYS[14], task = KEYS[15],
}
local arg = {
    tag = ARGV[1], outcome = ARGV[2], task_id = ARGV[3], worker = ARGV[4], queue = ARGV[5], record = ARGV[6],
    error = ARGV[7], retention = ARGV[8], wait_ms = ARGV[9], wait_bucket = ARGV[10], run_ms = ARGV[11],
    run_bucket = ARGV[12], blame = ARGV[13], breaker_failures = ARGV[14], breaker_seconds = ARGV[15],
    journal_length = ARGV[16], work = ARGV[17], log_error_on_cpu = ARGV[18], log_error_on_gpu = ARGV[19],
    queues = rest(ARGV, 20),
}
local outcome, worker = arg.outcome, arg.worker
local is_failure = outcome == 'failed'

local function open_breaker(failures, now)
    if cordon_state(key.cordons, worker) ~= '' then return end
    local reason, at = failures .. ' failures in a row', math.floor(now)
    local ends = at + tonumber(arg.breaker_seconds)
    local cordon = {state = 'cordoned', who = 'circuit breaker', reason = reason, at = at, ['until'] = ends}
    redis.call('HSET', key.cordons, worker, cjson.encode(cordon))
    local entry = {who = 'circuit breaker', verb = 'cordon', subject = worker, reason = reason, plan_id = '',
                   changes = {['until'] = ends, last_task = arg.task_id}}
    redis.pcall('XADD', key.journal, 'MAXLEN', '~', arg.journal_length, '*', 'entry', cjson.encode(entry))
end

-- Failures count until the worker completes a task. A task may cause its own error: then the breaker opens only if
-- other workers have completed tasks of that queue since this worker began to fail.
local function count_streak(now)
    local streak = 'streak|' .. worker
    if outcome == 'completed' then
        if redis.call('HDEL', key.totals, streak) == 1 then
            for _, queue in ipairs(arg.queues) do redis.call('HDEL', key.totals, 'since|' .. worker .. '|' .. queue) end
        end
    elseif is_failure and arg.blame ~= 'none' then
        local failures = redis.call('HINCRBY', key.totals, streak, 1)
        local completed = tonumber(redis.call('HGET', key.totals, 'completed||' .. arg.queue) or 0)
        local since = 'since|' .. worker .. '|' .. arg.queue
        redis.call('HSETNX', key.totals, since, completed)
        local others_complete = completed > tonumber(redis.call('HGET', key.totals, since))
        if failures >= tonumber(arg.breaker_failures) and (arg.blame == 'worker' or others_complete) then
            open_breaker(failures, now)
        end
    end
end

-- Sums up how far the estimate was off; `fold_corrections` turns the sums into corrections.
local function learn()
    local info = redis.call('HGET', key.workers, worker)
    if not info then return end
    local on_gpu = field(info, 'capability') ~= 'cpu'
    local log_error = on_gpu and arg.log_error_on_gpu or arg.log_error_on_cpu
    if log_error == '' then return end
    local prefix = arg.work .. (on_gpu and '|1|' or '|0|')
    redis.call('HINCRBY', key.surprises, prefix .. 'n', 1)
    redis.call('HINCRBYFLOAT', key.surprises, prefix .. 'x', log_error)
end

-- These change nothing, but fail where a key has another type: before the first write, not after. A server out of
-- memory lets a script continue whose first write frees some.
local now = clock()
redis.call('HDEL', key.held, '')
redis.call('ZREM', key.unacked_index, '')
check_end(key, now)
local unacked, held
if is_failure then
    redis.call('HLEN', key.cordons)
    unacked = redis.call('HGET', key.unacked, arg.tag)
    held = redis.call('HGET', key.held, arg.tag)
end

local was_unacked = redis.call('HDEL', key.unacked, arg.tag)
redis.call('ZREM', key.unacked_index, arg.tag)
if outcome == 'accepted' then return was_unacked end
local was_held = redis.call('HDEL', key.held, arg.tag)
if was_unacked + was_held == 0 then return 0 end
if outcome == 'retry' then return 1 end

local entry = redis.call('GET', key.task)  -- only tasks that we submitted have one
local record
if entry then
    record = appended(prepended(arg.record, 'ended_at', string.format('%.3f', now)), 'entry', entry)
end
local holder = held and cjson.decode(held) or {}
-- A failed task keeps its message, so that it can run again; one acknowledged before it ran keeps its ledger entry.
end_task(key, {
    id = arg.task_id, key = key.task, at = now, error = arg.error,
    outcome = outcome, worker = worker, queue = arg.queue,
    wait_ms = arg.wait_ms, wait_bucket = arg.wait_bucket, run_ms = arg.run_ms, run_bucket = arg.run_bucket,
    record = record, entry = entry, message = unacked and unwrapped(unacked), lane = holder[4], level = holder[5],
}, arg.retention)
count_streak(now)
if arg.work ~= '' and outcome == 'completed' then learn() end
return 1
