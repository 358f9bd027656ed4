--#include clock cordon message
-- Claim the next message for one worker and record the holder, in one step.
--
-- kombu pops first and writes `unacked` second: a worker killed in between has destroyed the message. An empty claim
-- only reads, so on a connection with CLIENT TRACKING ON it arms every key it read.
--
-- unacked, unacked_index  kombu's: hash tag -> [message, exchange, routing key]; zset tag -> seconds
-- held          hash tag -> [worker, incarnation, task id, lane, level, claimed at ms]
-- cordons       hash worker -> {"state": …, "until": seconds or null}
-- paused        set of queue names
-- incarnations  hash worker -> the one incarnation that may act under its name
-- lists         level by level, and in each level lane by lane
-- levels        the level of each group of lists, separated by blanks
-- lanes         name, its queue, '1' for a lane of this worker
-- Returns {lane, message, claimed at ms, level}, or nil when there is nothing to claim.
-- Errors: FENCED when another incarnation acts under this worker's name.
-- Invariant: a message is in a lane, or in unacked with a holder; never in neither.

local key = {
    unacked = KEYS[1], unacked_index = KEYS[2], held = KEYS[3], cordons = KEYS[4], paused = KEYS[5],
    incarnations = KEYS[6],
}
local arg = {tag = ARGV[1], worker = ARGV[2], incarnation = ARGV[3], levels = ARGV[4]}
-- Read in place: to copy the lists would cost an empty claim 10 %.
local first_list = 7  -- KEYS lists
local first_lane = 5  -- ARGV lanes {'name', 'queue', 'is_own'}

local DEEPEST = 1000  -- messages of a list that are tried; those that are not Celery's stay where they are

-- The message with its new tag, and its task id; nil for a message that is not Celery's.
local function tagged(raw)
    local message = parse(raw)
    if not message then return nil end
    return replaced(raw, 'delivery_tag', message.properties.delivery_tag, arg.tag), id_of(message)
end

local function take(list)
    local raw = redis.call('LINDEX', list, -1)
    local message, id = tagged(raw)
    if message then
        redis.call('RPOP', list)
        return message, id
    end
    for depth = 1, DEEPEST, 100 do
        local chunk = redis.call('LRANGE', list, -depth - 100, -depth - 1)
        for i = #chunk, 1, -1 do
            message, id = tagged(chunk[i])
            if message then
                redis.call('LREM', list, -1, chunk[i])
                return message, id
            end
        end
        if #chunk < 100 then return end
    end
end

local function claim(list, lane, level)
    local length = redis.pcall('LLEN', list)
    if type(length) ~= 'number' or length == 0 then return end  -- a key of another type: `doctor` reports it
    -- These change nothing, but fail where a key has another type: before the message is taken, not after.
    redis.call('HDEL', key.unacked, arg.tag)
    redis.call('ZREM', key.unacked_index, arg.tag)
    redis.call('HDEL', key.held, arg.tag)
    local message, id = take(list)
    if not message then return end
    local now = clock()
    local ms = string.format('%.0f', math.floor(now * 1000))
    redis.call('HSET', key.unacked, arg.tag, '[' .. message .. ', "", ' .. quoted(lane) .. ']')
    redis.call('ZADD', key.unacked_index, string.format('%.6f', now), arg.tag)
    local holder = {arg.worker, arg.incarnation, id, lane, level, tonumber(ms)}
    redis.call('HSET', key.held, arg.tag, cjson.encode(holder))
    return {lane, message, ms, level}
end

local acting = redis.call('HGET', key.incarnations, arg.worker)
if acting and acting ~= arg.incarnation then
    return redis.error_reply('FENCED ' .. arg.worker .. ' is ' .. acting)
end
local cordon = cordon_state(key.cordons, arg.worker)
if cordon ~= '' and cordon ~= 'cordoned' then return end
-- One command for all lists: many idle workers claim at every push.
if redis.call('EXISTS', unpack(KEYS, first_list)) == 0 then return end
local paused = {}
for _, queue in ipairs(redis.call('SMEMBERS', key.paused)) do paused[queue] = true end

local lanes, list = (#ARGV - first_lane + 1) / 3, first_list
for level in arg.levels:gmatch('%d+') do
    if redis.call('EXISTS', unpack(KEYS, list, list + lanes - 1)) > 0 then
        for place = 0, lanes - 1 do
            local name, queue, is_own = unpack(ARGV, first_lane + 3 * place, first_lane + 3 * place + 2)
            local is_open = (is_own == '1' or cordon == '') and not paused[queue]
            local taken = is_open and claim(KEYS[list + place], name, tonumber(level))
            if taken then return taken end
        end
    end
    list = list + lanes
end
