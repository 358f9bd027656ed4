--#include counters dead_letter open_record
-- The bookkeeping of a task's end. Every script that ends a task uses it: settle, complete_external, edit_lane, requeue
-- and resend.
--
-- `key` has: totals, current, minutes, hours, figures, attempts, dead, graves, and `ended`: a prefix, see keys.py.

local function has_dead_letter(outcome)
    return outcome == 'failed' or outcome == 'quarantined'
end

-- Reads what an end changes, into the task, and fails where a key to be written has another type. To be called before
-- the first write, and before `end_task`. `task` has: id, outcome, worker.
local function check_end(key, task, now)
    check_counters(key, now)
    task.streak = redis.call('HGET', key.totals, 'streak|' .. task.worker)
    task.has_attempts = redis.call('HEXISTS', key.attempts, task.id) == 1
    task.is_dead = redis.call('HEXISTS', key.dead, task.id) == 1
    if task.is_dead or has_dead_letter(task.outcome) then redis.call('ZCARD', key.graves) end
end

-- The source of a task by its record. A message has none, and a dead letter may outlive the record. A source that is the
-- first argument is not recorded.
local function source_of(record)
    local ok, fields = pcall(cjson.decode, record or '')
    if not ok or type(fields) ~= 'table' then return nil end
    fields = named(fields)
    local source = fields.source or type(fields.args) == 'table' and fields.args[1]
    return type(source) == 'string' and source or nil
end

-- The ended tasks of one outcome and one minute, in the order of their ends. The index is a convenience: where its key
-- has another type, the task ends all the same.
local function index_end(key, task, retention)
    local index = key.ended .. task.outcome .. ':' .. math.floor(task.at / 60)
    if redis.pcall('RPUSH', index, task.run_ms .. ' ' .. task.id) == 1 then
        redis.call('EXPIRE', index, retention + 60)
    end
end

-- Ends one task. `task` has the fields of `check_end` and `count_end`, and
--     key (of its ledger entry), error, at (when it ended: seconds)
--     record  its ledger record from now on (JSON), or nil where the ledger does not know the task
--     message, entry, lane, level, story  of a failed or quarantined one: what its dead letter keeps
-- The record of a quarantined task does not expire before its dead letter is dropped.
local function end_task(key, task, retention)
    if task.has_attempts then redis.call('HDEL', key.attempts, task.id, 'story|' .. task.id) end
    if task.record and task.outcome == 'quarantined' then
        redis.call('SET', task.key, task.record)
    elseif task.record then
        redis.call('SET', task.key, task.record, 'EX', retention)
        index_end(key, task, retention)
    end
    if has_dead_letter(task.outcome) and task.id ~= '' then
        local at = math.floor(task.at)
        add_dead_letter(key, task.key, retention, task.id, at, cjson.encode({
            message = task.message or nil, entry = not task.message and task.entry or nil,
            lane = task.lane, level = task.level, state = task.outcome, at = at, reason = task.error,
            story = task.story or {{at, task.worker, task.error}}, source = source_of(task.entry or task.record),
        }))
    elseif task.is_dead then
        redis.call('HDEL', key.dead, task.id)
        redis.call('ZREM', key.graves, task.id)
    end
    count_end(key, task)
end
