--#include args clock end_task json records
-- Edit chosen waiting messages of one list: end their tasks, or move them to another list in a new form.
--
-- Each is edited only if its text is still what the caller read. The caller makes the new text; the ledger record
-- changes in the same step.
--
-- source     the list the messages are in
-- lanes      set of the worker lanes that were ever used
-- edits      target: the target list (any list if it ends);  task: its ledger key
--            depth: where to search first, 1 is the next to run;  raw: its text;  text: its new text, '' = end the task
--            record: its new ledger record, '' = unchanged; of a task that ends the ended one, without "ended_at"
--            queue: '' = none of ours;  worker_lane: the target lane if it is a worker's, else ''
--            outcome: of a task that ends: cancelled | completed | failed
-- Returns 1 for each edit that was made, 0 for each message that was no longer there: then nothing of it was changed.
-- Invariant: a message is in exactly one list, or its task has ended with a record that says so.

local key = {
    lanes = KEYS[1], totals = KEYS[2], current = KEYS[3], minutes = KEYS[4], hours = KEYS[5], figures = KEYS[6],
    attempts = KEYS[7], dead = KEYS[8], graves = KEYS[9], ended = KEYS[10], source = KEYS[11], edits = rest(KEYS, 12),
}
local arg = {retention = ARGV[1], edits = rest(ARGV, 2)}
local edits = records(key.edits, {'target', 'task'}, arg.edits,
    {'task_id', 'depth', 'raw', 'text', 'record', 'queue', 'worker_lane', 'outcome'})

local REMOVED = '\0morag-queue: taken out'
local shift, taken, answer = 0, 0, {}
local now = clock()

-- Marked here and removed at the end, so that the depths of the others stay valid.
local function remove(depth, text)
    local at = -depth - shift
    if redis.call('LINDEX', key.source, at) ~= text then
        local from_head = redis.call('LPOS', key.source, text, 'RANK', -1)
        if not from_head then return false end
        at = from_head - redis.call('LLEN', key.source)
        shift = -at - depth
    end
    redis.call('LSET', key.source, at, REMOVED)
    taken = taken + 1
    return true
end

local function end_of(edit)
    return {
        id = edit.task_id, key = edit.task, outcome = edit.outcome, worker = '', queue = edit.queue, at = now,
        error = field(edit.record, 'error') or '', wait_ms = '', run_ms = '',
        record = prepended(edit.record, 'ended_at', string.format('%.3f', now)),
        message = edit.raw, lane = field(edit.record, 'lane'), level = tonumber((field(edit.record, 'level'))),
    }
end

local function move(edit)
    redis.call('LPUSH', edit.target, edit.text)
    if edit.worker_lane ~= '' then redis.call('SADD', key.lanes, edit.worker_lane) end
    if edit.record ~= '' and redis.call('TTL', edit.task) == -1 then redis.call('SET', edit.task, edit.record) end
end

-- A key of another type fails here, before the first write.
for _, edit in ipairs(edits) do
    redis.call('LLEN', edit.target)
    if edit.worker_lane ~= '' then redis.call('SCARD', key.lanes) end
    if edit.text == '' then
        edit.ends = end_of(edit)
        check_end(key, edit.ends, now)
    end
end

for i, edit in ipairs(edits) do
    answer[i] = 0
    if remove(tonumber(edit.depth), edit.raw) then
        answer[i] = 1
        if edit.ends then end_task(key, edit.ends, arg.retention) else move(edit) end
    end
end
if taken > 0 then redis.call('LREM', key.source, -taken, REMOVED) end
return answer
