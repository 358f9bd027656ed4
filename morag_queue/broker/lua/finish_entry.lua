-- Replace the entry of a begun change by that of the finished one, in the journal.
--
-- entry  JSON;  length  entries that the journal keeps
-- Returns the id of the new entry.

local key = {journal = KEYS[1]}
local arg = {begun = ARGV[1], entry = ARGV[2], length = ARGV[3]}

local id = redis.call('XADD', key.journal, 'MAXLEN', '~', arg.length, '*', 'entry', arg.entry)
redis.call('XDEL', key.journal, arg.begun)
return id
