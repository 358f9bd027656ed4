--#include message
-- Moves one chosen message to another lane, another level, or both; behind those that wait there.
--
-- Its text gets the new address and, where the level changes, the new priority: kombu's own restore goes by these. The
-- person's word of priority in the header stays what the person said. The ledger's record learns the new place.
--
-- KEYS[1] the list it is in  [2] the list it goes to  [3] lease (string, JSON with "term")
-- KEYS[4] the task's ledger key  [5] lanes  set of the worker lanes that were ever used
-- ARGV[1] task id  [2] the id as it stands in JSON  [3] the lane it goes to  [4] the level it is at  [5] the level it goes to
-- ARGV[6] '1' when a worker without a GPU reads that lane  [7] the term of the caller's lease, or ''
-- ARGV[8] how many messages of each end to look at  [9] the message's exact text where it is deeper, or ''
-- Returns 'moved'; 'gone' when it is not in that list; 'deep' when it may be in the middle, where this call has not looked;
-- 'foreign' when its text is not of the expected form, and 'gpu' when it needs one and would meet a worker without: it
-- stays where it is.
-- Errors: STALE when the lease has another term.
-- Invariant: the message is in exactly one of the two lists, before and after, also when the script is refused whole.

local id, needle, lane, level, to_level = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local depth, exact = tonumber(ARGV[8]), ARGV[9]
if ARGV[7] ~= '' then
    local lease = redis.call('GET', KEYS[3])
    if not lease or tostring(cjson.decode(lease).term) ~= ARGV[7] then return redis.error_reply('STALE term ' .. ARGV[7]) end
end

local function matching(chunk)
    for i = 1, #chunk do
        local message = chunk[i]:find(needle, 1, true) and parse(chunk[i])
        if message and id_of(message) == id then return chunk[i], message end
    end
end

-- kombu writes the properties last, so the last one is theirs.
local function reprioritised(raw, message)
    local head, old, tail = raw:match('^(.*"priority":%s*)(%-?%d+)(.*)$')
    if not head or tonumber(old) ~= message.properties.priority then return nil end
    return head .. to_level .. tail
end

local from = -1
local raw, message
if exact ~= '' then
    raw, message = exact, parse(exact)
else
    raw, message = matching(redis.call('LRANGE', KEYS[1], -depth, -1))
    if not raw then
        raw, message = matching(redis.call('LRANGE', KEYS[1], 0, depth - 1))
        from = 1
    end
    if not raw then return redis.call('LLEN', KEYS[1]) > 2 * depth and 'deep' or 'gone' end
end
local info = message and message.properties.delivery_info
local text = type(info) == 'table' and replaced(raw, 'routing_key', info.routing_key, lane)
if text and to_level ~= level then text = reprioritised(text, message) end
if not text then return 'foreign' end
local entry = message.headers.morag_queue
if ARGV[6] == '1' and type(entry) == 'table' and entry.requires == 'gpu' then return 'gpu' end

-- What can fail comes before anything is taken away: memory that is short, a key of another type.
local record = redis.call('GET', KEYS[4])
if lane:find('.', 1, true) then redis.call('SADD', KEYS[5], lane) end
redis.call('LPUSH', KEYS[2], text)
if redis.call('LREM', KEYS[1], from, raw) == 0 then
    redis.call('LPOP', KEYS[2])
    return 'gone'
end
if record and redis.call('TTL', KEYS[4]) == -1 then
    -- Our own JSON: inside a string each quote is escaped, so the first "lane" is the record's own.
    local head, tail = record:match('^(.-"lane": )"[^"]*", "level": %d+(.*)$')
    if head then redis.call('SET', KEYS[4], head .. quoted(lane) .. ', "level": ' .. to_level .. tail) end
end
return 'moved'
