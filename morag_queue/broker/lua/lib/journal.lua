-- Entries of the journal, written in the step that makes their change.

-- To be called before the first write: fails where the journal has another type. `entry` '' = none is written.
local function check_journal(journal, entry)
    if entry ~= '' then redis.call('XRANGE', journal, '-', '+', 'COUNT', 1) end
end

local function write_entry(journal, length, entry)
    if entry ~= '' then redis.call('XADD', journal, 'MAXLEN', '~', length, '*', 'entry', entry) end
end
