--#include lease message
-- Move messages from one lane to another, or to another level, oldest first, to the end of the waiting messages.
--
-- Each gets its new address and, where the level changes, the new priority. Payloads never travel through a client.
--
-- source, target  lists;  from_lane, to_lane  their lanes;  level, to_level  their levels
-- lanes      set of the worker lanes that were ever used
-- count      messages to move at most
-- skip       messages to skip, at the end where the oldest are (those that earlier calls have left)
-- term       the term of the caller's lease, or ''
-- keeps_gpu  '1' when a worker without a GPU reads the target: messages that need one stay
-- Returns {moved, left, need a GPU}: `left` includes messages that are not Celery's; they stay in place and in order.
-- Errors: STALE when the lease has another term.
-- Invariant: every message is in exactly one of the two lists, before and after, also when the script is refused whole.

local key = {lease = KEYS[1], lanes = KEYS[2], source = KEYS[3], target = KEYS[4]}
local arg = {
    from_lane = ARGV[1], to_lane = ARGV[2], level = ARGV[3], to_level = ARGV[4], count = ARGV[5], skip = ARGV[6],
    keeps_gpu = ARGV[7], term = ARGV[8],
}
local count, skip, keeps_gpu = tonumber(arg.count), tonumber(arg.skip), arg.keeps_gpu == '1'

local refusal = stale(key.lease, arg.term)
if refusal then return refusal end

-- Nearly every message names its lane near its end, as kombu writes it: found there as plain text, it costs a
-- microsecond.
local TAIL = 400
local old, new = '"routing_key": ' .. quoted(arg.from_lane), '"routing_key": ' .. quoted(arg.to_lane)
local function moved_text(raw)
    if arg.to_level ~= arg.level then
        local message = parse(raw)
        local text = message and readdressed(raw, message, arg.to_lane)
        return text and reprioritised(text, message, arg.to_level)
    end
    local from = math.max(1, #raw - TAIL)
    local first, last = raw:find(old, from, true)
    local is_last = first and not raw:find('"routing_key"', last, true)  -- the properties' own, not a header's
    if is_last and raw:sub(1, 10) == '{"body": "' and raw:find('"delivery_tag": "', last, true) then
        return raw:sub(1, first - 1) .. new .. raw:sub(last + 1)
    end
    local message = parse(raw)
    return message and readdressed(raw, message, arg.to_lane)
end

local function must_stay(raw)
    if not keeps_gpu or not raw:find('"gpu"', 1, true) then return false end
    local message = parse(raw)
    return message and needs_gpu(message)
end

local chunk = redis.call('LRANGE', key.source, -count - skip, -skip - 1)
local moving, left, need_gpu = {}, {}, 0
for i = #chunk, 1, -1 do
    local is_kept = must_stay(chunk[i])
    local text = not is_kept and moved_text(chunk[i])
    if is_kept then need_gpu = need_gpu + 1 end
    if text then moving[#moving + 1] = text else left[#left + 1] = chunk[i] end
end
if #moving == 0 then return {0, #left, need_gpu} end
-- What can fail comes before anything is removed: memory that is short, a key of another type.
redis.call('LLEN', key.target)
if arg.to_lane:find('.', 1, true) then redis.call('SADD', key.lanes, arg.to_lane) end
redis.call('LPUSH', key.target, unpack(moving))
if skip == 0 and #left == 0 then
    redis.call('LTRIM', key.source, 0, -#chunk - 1)
else
    -- Skipped and left messages keep their place: they go back behind the cut, oldest last.
    local skipped = skip > 0 and redis.call('LRANGE', key.source, -skip, -1) or {}
    redis.call('LTRIM', key.source, 0, -#chunk - skip - 1)
    for i = #left, 1, -1 do redis.call('RPUSH', key.source, left[i]) end
    for i = 1, #skipped do redis.call('RPUSH', key.source, skipped[i]) end
end
return {#moving, #left, need_gpu}
