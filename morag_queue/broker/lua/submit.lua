--#include args clock counters ids records
-- Queue messages: each message and its ledger entry together, or neither; an id that is still open is refused.
--
-- lanes     set of the worker lanes that were ever used
-- ids, tasks  prefixes of the lists of ids and of the ledger
-- journal   the journal of changes: a stream
-- note      an entry of the journal (JSON), written if all messages are queued; '' = none
-- journal_length  entries that the journal keeps
-- messages  task: the ledger key;  list: the target list
--           message; entry: the ledger entry (JSON, differs for each attempt at submitting); queue
--           worker_lane: the lane if it is a worker's, else ''
-- Returns for each message 1 (queued) or 0 (that id is still open: nothing was changed). A message that this very call
-- queued before (its answer was lost on the way) counts as queued and is not pushed again, also when it has ended
-- since.

local key = {
    lanes = KEYS[1], current = KEYS[2], minutes = KEYS[3], hours = KEYS[4], figures = KEYS[5], ids = KEYS[6],
    tasks = KEYS[7], journal = KEYS[8], messages = rest(KEYS, 9),
}
local arg = {note = ARGV[1], journal_length = ARGV[2], messages = rest(ARGV, 3)}
local messages = records(key.messages, {'task', 'list'}, arg.messages, {'message', 'entry', 'queue', 'worker_lane'})

-- A key of another type fails here, before the first message is queued.
check_counters(key, clock())
redis.call('SCARD', key.lanes)
if arg.note ~= '' then redis.call('XRANGE', key.journal, '-', '+', 'COUNT', 1) end
for i, message in ipairs(messages) do
    if i == 1 or message.list ~= messages[i - 1].list then redis.call('LLEN', message.list) end
end

local queued, ids, answer, refused = {}, {}, {}, 0
for i, message in ipairs(messages) do
    local entry = message.entry
    -- An ended task's record expires, an open one's does not: an ended id may be used again.
    local is_new = redis.call('SET', message.task, entry, 'NX')
    local known = not is_new and redis.pcall('GET', message.task)
    local is_ours = type(known) == 'string' and (known == entry or known:sub(-#entry - 1) == entry .. '}')
    if not is_new and not is_ours and redis.call('TTL', message.task) >= 0 then
        is_new = redis.call('SET', message.task, entry)
    end
    if is_new then
        redis.call('LPUSH', message.list, message.message)
        if message.worker_lane ~= '' then redis.call('SADD', key.lanes, message.worker_lane) end
        queued[message.queue] = (queued[message.queue] or 0) + 1
        ids[#ids + 1] = message.task:sub(#key.tasks + 1)
    end
    answer[i] = (is_new or is_ours) and 1 or 0
    refused = refused + 1 - answer[i]
end
list_ids(key.ids, key.tasks, ids)
for queue, number in pairs(queued) do count(key, {queue .. '|arrived', number}) end
-- Not if this very call was made before: then the note was written, too.
if arg.note ~= '' and refused == 0 and next(queued) then
    redis.call('XADD', key.journal, 'MAXLEN', '~', arg.journal_length, '*', 'entry', arg.note)
end
return answer
