--#include figures grave
-- Ends one message: out of the worker's hands, out of the open ledger, into the figures; all or nothing.
--
-- The ledger and the broker can then never disagree: a worker killed between "done" and "noted" would make a finished
-- task look lost, and it would be sent again.
--
-- KEYS[1] unacked  [2] unacked_index  [3] held      as in claim.lua
-- KEYS[4] the task's ledger key       string
-- KEYS[5] totals                      hash, for ever
-- KEYS[6] this minute  [7] this hour  hashes, expire
-- KEYS[8] attempts                   hash, as in takeback.lua
-- KEYS[9] cordons                    hash  worker -> JSON   [10] journal  stream, capped
-- KEYS[11] dead                      hash, see keys.py   [12] graves  zset, see keys.py
-- KEYS[13] figures                   hash, for ever   [14] surprises  hash, see keys.py
-- KEYS[15] workers                   hash  worker -> what it said of itself (JSON)
-- ARGV[1] tag  [2] outcome: accepted (early ack: runs on, unprotected) | retry | completed | failed | cancelled
-- ARGV[3] worker  [4] queue ('' = none of ours)  [5] the ended record (JSON)  [6] seconds to keep it
-- ARGV[7] wait ms  [8] its bucket  [9] run ms  [10] its bucket   ('' = not known)
-- ARGV[11] seconds to keep a minute  [12] an hour  [13] the task's id
-- ARGV[14] of a failure, what it says of its worker: none | unclear | worker
-- ARGV[15] failures in a row that open the worker's circuit breaker  [16] seconds that it stays open
-- ARGV[17] entries that the journal keeps
-- ARGV[18] what the run teaches of: `<content type>|<requires>`, or ''  [19] its surprise on a CPU  [20] on a GPU, or ''
-- ARGV[21…] the queues
-- The ended record keeps what the ledger had of the task as its "entry"; a failed task goes to `dead`, the oldest out of it.
-- Returns 1; 0 when the message is no longer this worker's (taken over): then nothing is counted.

local function open_breaker(failures)
    local now, present = tonumber(redis.call('TIME')[1]), redis.call('HGET', KEYS[9], ARGV[3])
    local over = present and cjson.decode(present)['until']
    if present and not (type(over) == 'number' and over <= now) then return end
    local reason = failures .. ' failures in a row'
    local ends = now + tonumber(ARGV[16])
    local cordon = {state = 'cordoned', who = 'circuit breaker', reason = reason, at = now, ['until'] = ends}
    redis.call('HSET', KEYS[9], ARGV[3], cjson.encode(cordon))
    local entry = {who = 'circuit breaker', verb = 'cordon', subject = ARGV[3], reason = reason, plan_id = '',
                   changes = {['until'] = ends, last_task = ARGV[13]}}
    redis.pcall('XADD', KEYS[10], 'MAXLEN', '~', ARGV[17], '*', 'entry', cjson.encode(entry))
end

-- Failures count until the worker ends a task well. An error of the task's own may be the task's fault: then the
-- breaker opens only if other workers have ended tasks of that queue well since this one began to fail.
local function count_streak(totals, outcome, worker, queue)
    local streak = 'streak|' .. worker
    if outcome == 'completed' then
        if redis.call('HDEL', totals, streak) == 1 then
            for i = 21, #ARGV do redis.call('HDEL', totals, 'since|' .. worker .. '|' .. ARGV[i]) end
        end
    elseif outcome == 'failed' and ARGV[14] ~= 'none' then
        local failures = redis.call('HINCRBY', totals, streak, 1)
        local completed = tonumber(redis.call('HGET', totals, 'completed||' .. queue) or 0)
        local since = 'since|' .. worker .. '|' .. queue
        redis.call('HSETNX', totals, since, completed)
        local others_do_well = completed > tonumber(redis.call('HGET', totals, since))
        if failures >= tonumber(ARGV[15]) and (ARGV[14] == 'worker' or others_do_well) then open_breaker(failures) end
    end
end

-- A failed task is kept with its message (of one acknowledged before it ran: with its entry), so that it can run again.
local function bury_failed(unacked, held, entry)
    local now, id = tonumber(redis.call('TIME')[1]), ARGV[13]
    local holder, ended = held and cjson.decode(held) or {}, cjson.decode(ARGV[5])
    local why = type(ended.error) == 'string' and ended.error or ''
    local message = unacked and unacked:match('^%[%s*(.*})%s*,%s*"?[^"]*"?%s*,%s*"?[^"]*"?%s*%]$')
    bury(KEYS[11], KEYS[12], KEYS[4], ARGV[6], id, {
        message = message or nil, entry = not message and entry or nil, lane = holder[4], level = holder[5],
        state = 'failed', at = now, reason = why, story = {{now, ARGV[3], why}},
    })
end

local tag, outcome, worker, queue = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- They change nothing, but fail where a key has another type: before anything is written, not half way.
for _, i in ipairs({1, 3, 5, 6, 7, 8, 9, 11}) do redis.call('HDEL', KEYS[i], '') end
for _, i in ipairs({2, 12}) do redis.call('ZREM', KEYS[i], '') end
local unacked = outcome == 'failed' and redis.call('HGET', KEYS[1], tag)
local held = outcome == 'failed' and redis.call('HGET', KEYS[3], tag)
local was_unacked = redis.call('HDEL', KEYS[1], tag)
redis.call('ZREM', KEYS[2], tag)
if outcome == 'accepted' then return was_unacked end
local was_held = redis.call('HDEL', KEYS[3], tag)
if was_unacked + was_held == 0 then return 0 end
if outcome == 'retry' then return 1 end
redis.call('HDEL', KEYS[8], ARGV[13], 'story|' .. ARGV[13])

-- Only what we queued has a ledger entry; an open one has no expiry.
local entry = redis.call('GET', KEYS[4])
if entry then
    redis.call('SET', KEYS[4], ARGV[5]:sub(1, -2) .. ', "entry": ' .. entry .. '}', 'EX', ARGV[6])
end
if redis.call('HDEL', KEYS[11], ARGV[13]) == 1 then redis.call('ZREM', KEYS[12], ARGV[13]) end
if outcome == 'failed' and ARGV[13] ~= '' then bury_failed(unacked, held, entry) end
redis.call('HINCRBY', KEYS[5], outcome .. '|' .. worker, 1)
if ARGV[9] ~= '' then redis.call('HINCRBY', KEYS[5], 'run_ms|' .. worker, ARGV[9]) end
count_streak(KEYS[5], outcome, worker, queue)
if ARGV[18] ~= '' and outcome == 'completed' then
    local info = redis.call('HGET', KEYS[15], worker)
    local on_gpu = info and not info:find('"capability":"cpu"', 1, true)
    local surprise = ARGV[on_gpu and 20 or 19]
    if info and surprise ~= '' then
        local field = ARGV[18] .. (on_gpu and '|1|' or '|0|')
        redis.call('HINCRBY', KEYS[14], field .. 'n', 1)
        redis.call('HINCRBYFLOAT', KEYS[14], field .. 'x', surprise)
    end
end
if queue == '' then return 1 end
redis.call('HINCRBY', KEYS[5], outcome .. '||' .. queue, 1)
for _, i in ipairs({6, 7, 13}) do
    count_end(KEYS[i], queue, outcome, ARGV[7], ARGV[8], ARGV[9], ARGV[10])
    if i ~= 13 then redis.call('EXPIRE', KEYS[i], ARGV[i + 5]) end
end
return 1
