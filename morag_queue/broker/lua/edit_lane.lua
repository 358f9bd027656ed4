--#include args clock end_task json place records undo
-- Edit chosen waiting messages of one list: take them out, or move them to another list in a new form.
--
-- Each is edited only if its text is still what the caller read. The caller makes the new text; the ledger record
-- changes in the same step.
--
-- source     the list the messages are in
-- lanes      set of the worker lanes that were ever used
-- undo       what the change did, see keys.py
-- items      of its undo: opaque, '' = it is not undone
-- edits      target: the target list (any list if it leaves the lanes);  task: its ledger key
--            depth: where to search first, 1 is the next to run;  raw: its text;  text: its new text, '' = take it out
--            place: its depth in the target, '' = behind those that wait there
--            record: its new ledger record, '' = unchanged; of a task that ends the ended one, without "ended_at"
--            queue: '' = none of ours;  worker_lane: the target lane if it is a worker's, else ''
--            outcome: of a task that is taken out: cancelled | completed | failed, or '' = it had ended before, and is
--            put back into that state: `record` ('' = none), and in `dead` its letter (JSON, '' = none) of letter_at
-- Returns for each edit in order the depth at which its message was found; 0 where it was no longer there: then nothing
-- of it was changed. The answer ends early after a few ms: the caller sends the other edits again.
-- Invariant: a message is in exactly one list, or its task has ended with a record that says so.

local key = {
    lanes = KEYS[1], totals = KEYS[2], current = KEYS[3], minutes = KEYS[4], hours = KEYS[5], figures = KEYS[6],
    attempts = KEYS[7], dead = KEYS[8], graves = KEYS[9], ended = KEYS[10], source = KEYS[11], undo = KEYS[12],
    edits = rest(KEYS, 13),
}
local arg = {retention = ARGV[1], items = ARGV[2], edits = rest(ARGV, 3)}
local edits = records(key.edits, {'target', 'task'}, arg.edits,
    {'task_id', 'depth', 'raw', 'text', 'place', 'record', 'queue', 'worker_lane', 'outcome', 'letter', 'letter_at'})

local REMOVED = '\0morag-queue: taken out'
local MOST_PASSED = 50000  -- messages that Redis passes in a list to insert others: 2 ms
local shift, taken, passed, shifts, answer, found = 0, 0, 0, {}, {}, {}
local now = clock()

-- Marked here and removed at the end, so that the depths of the others stay valid. Returns the depth in the list as it
-- was at the start.
local function remove(depth, text)
    local at = -depth - shift
    if redis.call('LINDEX', key.source, at) ~= text then
        local from_head = redis.call('LPOS', key.source, text, 'RANK', -1)
        if not from_head then return nil end
        at = from_head - redis.call('LLEN', key.source)
        shift = -at - depth
    end
    redis.call('LSET', key.source, at, REMOVED)
    taken = taken + 1
    return -at
end

local function end_of(edit)
    return {
        id = edit.task_id, key = edit.task, outcome = edit.outcome, worker = '', queue = edit.queue, at = now,
        error = field(edit.record, 'error') or '', wait_ms = '', run_ms = '',
        record = prepended(edit.record, 'ended_at', string.format('%.3f', now)),
        message = edit.raw, lane = field(edit.record, 'lane'), level = tonumber((field(edit.record, 'level'))),
    }
end

local function put_back(edit)
    redis.call('HDEL', key.attempts, edit.task_id, 'story|' .. edit.task_id)
    if edit.record == '' then
        redis.call('DEL', edit.task)
    elseif field(edit.record, 'state') == 'quarantined' then
        redis.call('SET', edit.task, edit.record)
    else
        redis.call('SET', edit.task, edit.record, 'EX', arg.retention)
    end
    if edit.letter ~= '' then
        add_dead_letter(key, edit.task, arg.retention, edit.task_id, edit.letter_at, edit.letter)
    end
end

local function move(edit)
    if edit.place == '' then
        redis.call('LPUSH', edit.target, edit.text)
    else
        passed = passed + insert(edit.target, edit.text, tonumber(edit.place), shifts)
    end
    if edit.worker_lane ~= '' then redis.call('SADD', key.lanes, edit.worker_lane) end
    if edit.record ~= '' and redis.call('TTL', edit.task) == -1 then redis.call('SET', edit.task, edit.record) end
end

-- A key of another type fails here, before the first write.
check_undo(key.undo, arg.items)
for _, edit in ipairs(edits) do
    redis.call('LLEN', edit.target)
    if edit.worker_lane ~= '' then redis.call('SCARD', key.lanes) end
    edit.attempts = redis.call('HMGET', key.attempts, edit.task_id, 'story|' .. edit.task_id)
    if edit.text == '' and edit.outcome ~= '' then
        edit.ends = end_of(edit)
        check_end(key, edit.ends, now)
    elseif edit.letter ~= '' then
        redis.call('HLEN', key.dead)
        redis.call('ZCARD', key.graves)
    end
end

for i, edit in ipairs(edits) do
    if passed > MOST_PASSED then break end
    local depth = remove(tonumber(edit.depth), edit.raw)
    answer[i], found[i] = depth or 0, false
    if depth then
        found[i] = edit.attempts[1] and {depth, edit.attempts[1], edit.attempts[2] or ''} or {depth}
        if edit.ends then
            end_task(key, edit.ends, arg.retention)
        elseif edit.text == '' then
            put_back(edit)
        else
            move(edit)
        end
    end
end
if taken > 0 then
    redis.call('LREM', key.source, -taken, REMOVED)
    record_undo(key.undo, arg.retention, found, arg.items)
end
return answer
