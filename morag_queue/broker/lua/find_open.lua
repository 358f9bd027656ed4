--#include args json open_record
-- Find the open tasks among ledger entries. Reads only.
--
-- before  seconds: only tasks enqueued before
-- tasks   ledger keys
-- Returns for each open task {index of its key, enqueued at (text), queue, level}.
-- The record is searched as text, for it holds a task's arguments. The fields needed here come before these.

local key = {tasks = rest(KEYS, 1)}
local arg = {before = ARGV[1]}

local answer, before = {}, tonumber(arg.before)
for i, task in ipairs(key.tasks) do
    local record = redis.call('GET', task)
    record = record and with_place(record)
    if record and field(record, 'state') == 'queued' then
        local at, queue = field(record, 'enqueued_at'), field(record, 'queue')
        local level = tonumber((field(record, 'level')))
        if tonumber(at) and queue and level and tonumber(at) < before then
            answer[#answer + 1] = {i, at, queue, level}
        end
    end
end
return answer
