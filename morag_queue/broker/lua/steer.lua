-- Takes chosen waiting messages out of one list: for good (cancelled), or into another list in a new form.
--
-- Each only if it still is exactly what was read: whoever took, moved or changed it meanwhile has come first. The new
-- text is made by the caller, who has read the message to choose it; its ledger record changes in the same step.
--
-- KEYS[1] the list they are in   [2] lanes  set of the worker lanes that were ever used
-- KEYS[3] totals  [4] this minute  [5] this hour   as in settle.lua
-- KEYS[6+2i] the list it goes to (of a cancelled one: any)   KEYS[7+2i] its ledger key
-- ARGV[1] seconds to keep the record of an ended task  [2] a minute  [3] an hour
-- ARGV[4+6i] its depth, 1 is the next to run: where to look first   [5+6i] its text   [6+6i] its new text, '' = cancelled
-- ARGV[7+6i] its new ledger record, '' = leave it   [8+6i] its queue, '' = none of ours   [9+6i] a worker's lane it goes to, or ''
-- Returns for each 1, or 0 where it was no longer there: then nothing of it was changed.
-- Invariant: a message is in exactly one list, or cancelled with a record that says so.

local GONE = '\0morag-queue: taken out'
local items, shift, taken, answer = (#KEYS - 5) / 2, 0, 0, {}
for i = 0, items - 1 do redis.call('LLEN', KEYS[6 + 2 * i]) end  -- a key of another type fails here, with nothing done

-- Marked first and removed at the end, so that the depths of the others stay what they are.
local function take_out(depth, text)
    local at = -depth - shift
    if redis.call('LINDEX', KEYS[1], at) ~= text then
        local from_head = redis.call('LPOS', KEYS[1], text, 'RANK', -1)
        if not from_head then return false end
        at = from_head - redis.call('LLEN', KEYS[1])
        shift = -at - depth
    end
    redis.call('LSET', KEYS[1], at, GONE)
    taken = taken + 1
    return true
end

local function cancelled(task, record, queue)
    redis.call('SET', task, record, 'EX', ARGV[1])
    if queue == '' then return end
    redis.call('HINCRBY', KEYS[3], 'cancelled||' .. queue, 1)
    for i = 4, 5 do
        redis.call('HINCRBY', KEYS[i], queue .. '|cancelled', 1)
        redis.call('EXPIRE', KEYS[i], ARGV[i - 2])
    end
end

for i = 0, items - 1 do
    local target, task = KEYS[6 + 2 * i], KEYS[7 + 2 * i]
    local text, record, lane = ARGV[6 + 6 * i], ARGV[7 + 6 * i], ARGV[9 + 6 * i]
    answer[i + 1] = 0
    if take_out(tonumber(ARGV[4 + 6 * i]), ARGV[5 + 6 * i]) then
        answer[i + 1] = 1
        if text == '' then
            cancelled(task, record, ARGV[8 + 6 * i])
        else
            redis.call('LPUSH', target, text)
            if lane ~= '' then redis.call('SADD', KEYS[2], lane) end
            if record ~= '' and redis.call('TTL', task) == -1 then redis.call('SET', task, record) end
        end
    end
end
if taken > 0 then redis.call('LREM', KEYS[1], -taken, GONE) end
return answer
