-- Which of these tasks are open, and since when. Reads only.
--
-- KEYS[…] ledger keys, as in submit.lua   ARGV[1] only what was queued before (seconds)
-- Returns for each {index of its key, enqueued at (text), queue, level}.
-- The record is searched as text, for it holds a task's arguments: what is wanted comes before these, and its quotes
-- are never escaped.

local answer, before = {}, tonumber(ARGV[1])
for i = 1, #KEYS do
    local record = redis.call('GET', KEYS[i])
    if record and record:match('"state": "(%a+)"') == 'queued' then
        local at = record:match('"enqueued_at": ([%d.]+)')
        local queue, level = record:match('"queue": "([^"]*)"'), record:match('"level": (%d)')
        if at and queue and level and tonumber(at) < before then answer[#answer + 1] = {i, at, queue, tonumber(level)} end
    end
end
return answer
