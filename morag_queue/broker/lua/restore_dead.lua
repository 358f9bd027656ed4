--#include args dead_letter json records undo
-- Put dropped dead letters back into `dead`.
--
-- dead, graves  see keys.py
-- undo          what the change did, see keys.py;  items  of its undo: opaque
-- letters       task: the ledger key;  id: the task id;  at: since when it was dead (seconds);  text: the letter
-- Returns for each letter 1, or 0 where there is a newer letter, or the task is queued again: then nothing was changed.

local key = {dead = KEYS[1], graves = KEYS[2], undo = KEYS[3], letters = rest(KEYS, 4)}
local arg = {retention = ARGV[1], items = ARGV[2], letters = rest(ARGV, 3)}
local letters = records(key.letters, {'task'}, arg.letters, {'id', 'at', 'text'})

local answer, found, restored = {}, {}, 0
check_undo(key.undo, arg.items)
redis.call('ZCARD', key.graves)
for i, letter in ipairs(letters) do
    local record = redis.call('GET', letter.task)
    local state = record and field(record, 'state')
    answer[i], found[i] = 0, false
    if state ~= 'queued' and redis.call('HEXISTS', key.dead, letter.id) == 0 then
        add_dead_letter(key, letter.task, arg.retention, letter.id, letter.at, letter.text)
        if state == 'quarantined' then redis.call('PERSIST', letter.task) end
        answer[i], found[i], restored = 1, true, restored + 1
    end
end
if restored > 0 then record_undo(key.undo, arg.retention, found, arg.items) end
return answer
