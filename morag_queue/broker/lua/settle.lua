--#include clock cordon end_task json unacked
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
-- queues     all queues, separated by blanks
-- Returns 1; 0 when the message is no longer this worker's: then nothing was changed.

local key = {
    unacked = KEYS[1], unacked_index = KEYS[2], held = KEYS[3], totals = KEYS[4], current = KEYS[5], minutes = KEYS[6],
    hours = KEYS[7], figures = KEYS[8], attempts = KEYS[9], dead = KEYS[10], graves = KEYS[11], ended = KEYS[12],
    cordons = KEYS[13], journal = KEYS[14], surprises = KEYS[15], workers = KEYS[16], task = KEYS[17],
}
-- Locals instead of a table `arg`: this is the script that runs most often.
local tag, outcome, task_id, worker, queue, record, error, retention, wait_ms, wait_bucket, run_ms, run_bucket, blame,
    breaker_failures, breaker_seconds, journal_length, work, log_error_on_cpu, log_error_on_gpu, queues = unpack(ARGV)
local is_failure = outcome == 'failed'

local function open_breaker(failures, now)
    if cordon_state(key.cordons, worker) ~= '' then return end
    local reason, at = failures .. ' failures in a row', math.floor(now)
    local ends = at + tonumber(breaker_seconds)
    local cordon = {state = 'cordoned', who = 'circuit breaker', reason = reason, at = at, ['until'] = ends}
    redis.call('HSET', key.cordons, worker, cjson.encode(cordon))
    local entry = {who = 'circuit breaker', verb = 'cordon', subject = worker, reason = reason, plan_id = '',
                   changes = {['until'] = ends, last_task = task_id}}
    redis.pcall('XADD', key.journal, 'MAXLEN', '~', journal_length, '*', 'entry', cjson.encode(entry))
end

-- Failures count until the worker completes a task. A task may cause its own error: then the breaker opens only if
-- other workers have completed tasks of that queue since this worker began to fail.
local function count_streak(now, has_streak)
    local streak = 'streak|' .. worker
    if outcome == 'completed' then
        if has_streak then
            redis.call('HDEL', key.totals, streak)
            for name in queues:gmatch('%S+') do redis.call('HDEL', key.totals, 'since|' .. worker .. '|' .. name) end
        end
    elseif is_failure and blame ~= 'none' then
        local failures = redis.pcall('HINCRBY', key.totals, streak, 1)
        if type(failures) ~= 'number' then return end  -- the field is no number: `doctor` reports it
        local completed = tonumber(redis.call('HGET', key.totals, 'completed||' .. queue) or 0) or 0
        local since = 'since|' .. worker .. '|' .. queue
        redis.call('HSETNX', key.totals, since, completed)
        local others_complete = completed > (tonumber(redis.call('HGET', key.totals, since)) or 0)
        if failures >= tonumber(breaker_failures) and (blame == 'worker' or others_complete) then
            open_breaker(failures, now)
        end
    end
end

-- Sums up how far the estimate was off; `fold_corrections` turns the sums into corrections. To learn is a convenience:
-- where one of its keys has another type, the task ends all the same.
local function learn()
    local info = redis.pcall('HGET', key.workers, worker)
    if type(info) ~= 'string' then return end
    local on_gpu = field(info, 'capability') ~= 'cpu'
    local log_error = on_gpu and log_error_on_gpu or log_error_on_cpu
    if log_error == '' then return end
    local prefix = work .. (on_gpu and '|1|' or '|0|')
    redis.pcall('HINCRBY', key.surprises, prefix .. 'n', 1)
    redis.pcall('HINCRBYFLOAT', key.surprises, prefix .. 'x', log_error)
end

local now = clock()
local is_end = outcome ~= 'accepted' and outcome ~= 'retry'
local task = {
    id = task_id, key = key.task, at = now, error = error,
    outcome = outcome, worker = worker, queue = queue,
    wait_ms = wait_ms, wait_bucket = wait_bucket, run_ms = run_ms, run_bucket = run_bucket,
}

-- Read first, also what is written only: a key of another type fails here, before the first write. A server out of
-- memory lets a script continue whose first write frees some.
local held, unacked = redis.call('HGET', key.held, tag), nil
redis.call('ZSCORE', key.unacked_index, tag)
if is_end then
    task.entry = redis.call('GET', key.task)  -- only tasks that we submitted have one
    check_end(key, task, now)
end
if is_failure then
    redis.call('HLEN', key.cordons)
    unacked = redis.call('HGET', key.unacked, tag)
end

local was_unacked = redis.call('HDEL', key.unacked, tag)
redis.call('ZREM', key.unacked_index, tag)
if outcome == 'accepted' then return was_unacked end
if held then redis.call('HDEL', key.held, tag) elseif was_unacked == 0 then return 0 end
if not is_end then return 1 end

if task.entry then
    task.record = appended(prepended(record, 'ended_at', string.format('%.3f', now)), 'entry', task.entry)
end
if is_failure then
    -- A failed task keeps its message, so that it can run again; one acknowledged before it ran keeps its ledger entry.
    local holder = read_holder(held) or {}
    task.message, task.lane, task.level = unacked and unwrapped(unacked), holder.lane, holder.level
end
end_task(key, task, retention)
count_streak(now, task.streak)
if work ~= '' and outcome == 'completed' then learn() end
return 1
