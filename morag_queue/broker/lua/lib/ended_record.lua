--#include json open_record
-- The record of an ended task (JSON): the plain fields of its open entry, how it ended, and the entry itself.
local function ended_record(entry, task, now)
    local ok, fields = pcall(cjson.decode, entry)
    local ended = {}
    for name, value in pairs(ok and type(fields) == 'table' and named(fields) or {}) do
        if type(value) == 'string' or type(value) == 'number' then ended[name] = value end
    end
    ended.state, ended.worker, ended.error = nil, task.worker, task.error
    ended.started_at, ended.wait_seconds, ended.run_seconds = cjson.null, cjson.null, cjson.null
    if task.wait_ms ~= '' then ended.wait_seconds = task.wait_ms / 1000 end
    if task.run_ms ~= '' then ended.run_seconds = task.run_ms / 1000 end
    ended.ended_at = math.floor(now * 1000) / 1000
    return appended(prepended(cjson.encode(ended), 'state', quoted(task.outcome)), 'entry', entry)
end
