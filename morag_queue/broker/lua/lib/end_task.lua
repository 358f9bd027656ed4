--#include json counters dead_letter
-- The bookkeeping of a task's end. Every script that ends a task uses it: settle, complete_external, edit_lane, requeue
-- and resend.
--
-- `key` has: totals, minutes, hours, figures, attempts, dead, graves.

-- Fails where one of the keys has another type. To be called before the first write.
local function check_counters(key, now)
    for _, name in ipairs({'totals', 'figures', 'attempts', 'dead'}) do redis.call('HLEN', key[name]) end
    redis.call('HLEN', minute_key(key, now))
    redis.call('HLEN', hour_key(key, now))
    redis.call('ZCARD', key.graves)
end

-- The record of an ended task (JSON): the plain fields of its open entry, how it ended, and the entry itself.
local function ended_record(entry, task, now)
    local ok, fields = pcall(cjson.decode, entry)
    local ended = {}
    for name, value in pairs(ok and type(fields) == 'table' and fields or {}) do
        if type(value) == 'string' or type(value) == 'number' then ended[name] = value end
    end
    ended.state, ended.worker, ended.error = nil, task.worker, task.error
    ended.started_at, ended.wait_seconds, ended.run_seconds = cjson.null, cjson.null, cjson.null
    if task.wait_ms ~= '' then ended.wait_seconds = task.wait_ms / 1000 end
    if task.run_ms ~= '' then ended.run_seconds = task.run_ms / 1000 end
    ended.ended_at = math.floor(now * 1000) / 1000
    return appended(prepended(cjson.encode(ended), 'state', quoted(task.outcome)), 'entry', entry)
end

-- Ends one task. `task` has the fields of `count_end`, and
--     id, key (of its ledger entry), error, at (when it ended: seconds)
--     record  its ledger record from now on (JSON), or nil where the ledger does not know the task
--     message, entry, lane, level, story  of a failed or quarantined one: what its dead letter keeps
-- The record of a quarantined task does not expire before its dead letter is dropped.
local function end_task(key, task, retention)
    redis.call('HDEL', key.attempts, task.id, 'story|' .. task.id)
    if task.record and task.outcome == 'quarantined' then
        redis.call('SET', task.key, task.record)
    elseif task.record then
        redis.call('SET', task.key, task.record, 'EX', retention)
    end
    if (task.outcome == 'failed' or task.outcome == 'quarantined') and task.id ~= '' then
        local at = math.floor(task.at)
        add_dead_letter(key, task.key, retention, task.id, {
            message = task.message or nil, entry = not task.message and task.entry or nil,
            lane = task.lane, level = task.level, state = task.outcome, at = at, reason = task.error,
            story = task.story or {{at, task.worker, task.error}},
        })
    elseif redis.call('HDEL', key.dead, task.id) == 1 then
        redis.call('ZREM', key.graves, task.id)
    end
    count_end(key, task, task.at)
end
