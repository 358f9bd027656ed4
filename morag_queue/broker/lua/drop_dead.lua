--#include args json records
-- Drop dead letters.
--
-- dead, graves  see keys.py
-- retention     seconds until the ledger drops a quarantined task too
-- letters       task: the ledger key;  id: the task id
-- Returns the number of dead letters dropped.

local key = {dead = KEYS[1], graves = KEYS[2], letters = rest(KEYS, 3)}
local arg = {retention = ARGV[1], letters = rest(ARGV, 2)}
local letters = records(key.letters, {'task'}, arg.letters, {'id'})

local dropped = 0
for _, letter in ipairs(letters) do
    dropped = dropped + redis.call('HDEL', key.dead, letter.id)
    redis.call('ZREM', key.graves, letter.id)
    local record = redis.call('GET', letter.task)
    if record and field(record, 'state') == 'quarantined' then redis.call('EXPIRE', letter.task, arg.retention) end
end
return dropped
