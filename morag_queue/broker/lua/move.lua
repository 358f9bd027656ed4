--#include message
-- Moves messages from one lane to another, at one level, oldest first, behind those that wait there.
--
-- Each gets its new address: without it, a later reject, retry or restore would send it back to the old lane. Payloads
-- never travel through a client.
--
-- KEYS[1] the list they are in  [2] the list they go to  [3] lease (string, JSON with "term")
-- KEYS[4] lanes  set of the worker lanes that were ever used
-- ARGV[1] at most so many  [2] the lane they are in  [3] the lane they go to  [4] how many to pass over, at the end
--         where the oldest are (messages that earlier calls have left)  [5] the term of the caller's lease, or ''
-- ARGV[6] '1' when a worker without a GPU reads the lane they go to: what needs one stays, and counts as left
-- Returns {moved, left, need a GPU}: `left` are foreign or broken messages too; they stay where they are, in their order.
-- Errors: STALE when the lease has another term.
-- Invariant: every message is in exactly one of the two lists, before and after, also when the script is refused whole.

local count, passed = tonumber(ARGV[1]), tonumber(ARGV[4])
if ARGV[5] ~= '' then
    local lease = redis.call('GET', KEYS[3])
    if not lease or tostring(cjson.decode(lease).term) ~= ARGV[5] then return redis.error_reply('STALE term ' .. ARGV[5]) end
end

-- Nearly every message names the lane it lies in near its end: found there as plain text, it costs a microsecond.
local TAIL = 400
local old, new = '"routing_key": ' .. quoted(ARGV[2]), '"routing_key": ' .. quoted(ARGV[3])
local function readdressed(raw)
    local from = math.max(1, #raw - TAIL)
    local first, last = raw:find(old, from, true)
    local is_last = first and not raw:find('"routing_key"', last, true)  -- the properties' own, not a header's
    if is_last and raw:sub(1, 10) == '{"body": "' and raw:find('"delivery_tag": "', last, true) then
        return raw:sub(1, first - 1) .. new .. raw:sub(last + 1)
    end
    local message = parse(raw)
    local info = message and message.properties.delivery_info
    return type(info) == 'table' and replaced(raw, 'routing_key', info.routing_key, ARGV[3]) or nil
end

local keeps_gpu, need_gpu = ARGV[6] == '1', 0
local function stays(raw)
    -- A needle that begins with a rare letter: in base64 and between keys and values there is hardly a colon.
    if not keeps_gpu or not raw:find(': "gpu"', 1, true) then return false end
    local message = parse(raw)
    local entry = message and message.headers.morag_queue
    return type(entry) == 'table' and entry.requires == 'gpu'
end

local chunk = redis.call('LRANGE', KEYS[1], -count - passed, -passed - 1)
local moving, left = {}, {}
for i = #chunk, 1, -1 do
    local is_kept = stays(chunk[i])
    local text = not is_kept and readdressed(chunk[i])
    if is_kept then need_gpu = need_gpu + 1 end
    if text then moving[#moving + 1] = text else left[#left + 1] = chunk[i] end
end
if #moving == 0 then return {0, #left, need_gpu} end
-- What can fail comes before anything is taken away: memory that is short, a key of another type.
if ARGV[3]:find('.', 1, true) then redis.call('SADD', KEYS[4], ARGV[3]) end
redis.call('LPUSH', KEYS[2], unpack(moving))
if passed == 0 and #left == 0 then
    redis.call('LTRIM', KEYS[1], 0, -#chunk - 1)
else
    -- What was passed over and what is left keep their place: they go back behind the cut, oldest last.
    local kept = passed > 0 and redis.call('LRANGE', KEYS[1], -passed, -1) or {}
    redis.call('LTRIM', KEYS[1], 0, -#chunk - passed - 1)
    for i = #left, 1, -1 do redis.call('RPUSH', KEYS[1], left[i]) end
    for i = 1, #kept do redis.call('RPUSH', KEYS[1], kept[i]) end
end
return {#moving, #left, need_gpu}
