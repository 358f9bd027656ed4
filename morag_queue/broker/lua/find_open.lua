--#include args json open_record
-- Find the open tasks among ledger entries. Reads only.
--
-- before  seconds: only tasks enqueued before
-- tasks   ledger keys
-- Returns for each open task {index of its key, enqueued at (text), queue, level}.
-- The record is searched as text, for it holds a task's arguments. The fields needed here come before these.

local key = {tasks = rest(KEYS, 1)}
local arg = {before = ARGV[1]}

local function place_of(record)
    local named, at, queue, level = first_items(record)
    if named then return at, queue, level end
    if field(record, 'state') ~= 'queued' then return nil end
    return field(record, 'enqueued_at'), field(record, 'queue'), (field(record, 'level'))
end

local answer, before = {}, tonumber(arg.before)
for i, task in ipairs(key.tasks) do
    local record = redis.call('GET', task)
    local at, queue, level = place_of(record or '')
    if tonumber(at) and queue and tonumber(level) and tonumber(at) < before then
        answer[#answer + 1] = {i, at, queue, tonumber(level)}
    end
end
return answer
