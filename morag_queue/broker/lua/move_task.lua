--#include lease message open_record
-- Move one chosen message to another lane, another level, or both; to the end of the waiting messages.
--
-- Its text gets the new address and, where the level changes, the new priority: kombu's restore uses these. The
-- priority in our header stays as it was requested. The ledger's record gets the new place.
--
-- source, target  lists;  task  the ledger key;  lanes  set of the worker lanes that were ever used
-- task_id     the id;  needle  the id as it is written in JSON
-- keeps_gpu   '1' when a worker without a GPU reads the target lane
-- depth       messages at each end of the list to search
-- exact       the message's exact text where it is deeper, or ''
-- term        the term of the caller's lease, or ''
-- Returns 'moved'; 'gone' when it is not in that list; 'deep' when it may be in the middle, which was not searched;
-- 'foreign' when its text is not of the expected form, and 'gpu' when `keeps_gpu` holds it back: then it stays.
-- Errors: STALE when the lease has another term.
-- Invariant: the message is in exactly one of the two lists, before and after, also when the script is refused whole.

local key = {lease = KEYS[1], lanes = KEYS[2], source = KEYS[3], target = KEYS[4], task = KEYS[5]}
local arg = {
    task_id = ARGV[1], needle = ARGV[2], lane = ARGV[3], level = ARGV[4], to_level = ARGV[5], keeps_gpu = ARGV[6],
    depth = ARGV[7], exact = ARGV[8], term = ARGV[9],
}
local depth = tonumber(arg.depth)

local refusal = stale(key.lease, arg.term)
if refusal then return refusal end

local function matching(chunk)
    for i = 1, #chunk do
        local message = chunk[i]:find(arg.needle, 1, true) and parse(chunk[i])
        if message and id_of(message) == arg.task_id then return chunk[i], message end
    end
end

local from = -1
local raw, message
if arg.exact ~= '' then
    raw, message = arg.exact, parse(arg.exact)
else
    raw, message = matching(redis.call('LRANGE', key.source, -depth, -1))
    if not raw then
        raw, message = matching(redis.call('LRANGE', key.source, 0, depth - 1))
        from = 1
    end
    if not raw then return redis.call('LLEN', key.source) > 2 * depth and 'deep' or 'gone' end
end
local text = message and readdressed(raw, message, arg.lane)
if text and arg.to_level ~= arg.level then text = reprioritised(text, message, arg.to_level) end
if not text then return 'foreign' end
if arg.keeps_gpu == '1' and needs_gpu(message) then return 'gpu' end

-- What can fail comes before anything is removed: memory that is short, a key of another type.
redis.call('LLEN', key.target)
local record = redis.call('GET', key.task)
if arg.lane:find('.', 1, true) then redis.call('SADD', key.lanes, arg.lane) end
redis.call('LPUSH', key.target, text)
if redis.call('LREM', key.source, from, raw) == 0 then
    redis.call('LPOP', key.target)
    return 'gone'
end
if record and redis.call('TTL', key.task) == -1 then
    record = with_value(with_value(with_place(record), 'lane', quoted(arg.lane)), 'level', arg.to_level)
    redis.call('SET', key.task, record)
end
return 'moved'
