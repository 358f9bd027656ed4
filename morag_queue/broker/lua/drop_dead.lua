--#include args json records undo
-- Drop dead letters.
--
-- dead, graves  see keys.py
-- undo          what the change did, see keys.py: the letters themselves
-- retention     seconds until the ledger drops a quarantined task too
-- items         of its undo: opaque
-- letters       task: the ledger key;  id: the task id
-- Returns for each letter 1, or 0 where there was none.

local key = {dead = KEYS[1], graves = KEYS[2], undo = KEYS[3], letters = rest(KEYS, 4)}
local arg = {retention = ARGV[1], items = ARGV[2], letters = rest(ARGV, 3)}
local letters = records(key.letters, {'task'}, arg.letters, {'id'})

local answer, found, dropped = {}, {}, 0
check_undo(key.undo, arg.items)
for i, letter in ipairs(letters) do
    local text, at = redis.call('HGET', key.dead, letter.id), redis.call('ZSCORE', key.graves, letter.id)
    answer[i] = redis.call('HDEL', key.dead, letter.id)
    redis.call('ZREM', key.graves, letter.id)
    local record = redis.call('GET', letter.task)
    if record and field(record, 'state') == 'quarantined' then redis.call('EXPIRE', letter.task, arg.retention) end
    found[i] = text and {at or '0', text} or false
    dropped = dropped + answer[i]
end
if dropped > 0 then record_undo(key.undo, arg.retention, found, arg.items) end
return answer
