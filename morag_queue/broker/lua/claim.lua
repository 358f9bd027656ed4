--#include message
-- Takes the next message for one worker, and writes who has it, in one step.
--
-- kombu pops first and writes `unacked` second; a worker killed in between has destroyed the message. Here both are one
-- script. An empty claim only reads, so on a connection with CLIENT TRACKING ON it arms every key it looked at.
--
-- KEYS[1] unacked          hash  tag -> [message, exchange, routing key]       (kombu's)
-- KEYS[2] unacked_index    zset  tag -> seconds                                (kombu's)
-- KEYS[3] held             hash  tag -> [worker, incarnation, task id, lane, level, claimed at ms]
-- KEYS[4] cordons          hash  worker -> {"state": …, "until": seconds or null}
-- KEYS[5] paused           set   of queue names
-- KEYS[6] incarnations     hash  worker -> the one incarnation that may act in its name
-- KEYS[7…]                 lists, level by level, in each level lane by lane
-- ARGV[1] worker  [2] incarnation  [3] new delivery tag  [4] number of lanes L
-- ARGV[5 … 4+3L]           for each lane: name, its queue, "1" if it is this worker's own
-- ARGV[5+3L …]             the level of each group of L keys
-- Returns {lane, message, claimed at ms}, or nil when there is nothing to take.
-- Errors: FENCED when another incarnation acts in this worker's name.
-- Invariant: a message is in a lane, or in unacked with a holder; never in neither.

local FIRST_LIST, DEEPEST = 7, 1000
local worker, incarnation, tag, lanes = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

-- With its new tag, and its id; nil for what is not Celery's: that is left where it is, and looked past.
local function tagged(raw)
    local message = parse(raw)
    if not message then return nil end
    return replaced(raw, 'delivery_tag', message.properties.delivery_tag, tag), id_of(message)
end

local function take(key)
    local raw = redis.call('LINDEX', key, -1)
    local message, id = tagged(raw)
    if message then
        redis.call('RPOP', key)
        return message, id
    end
    for depth = 1, DEEPEST, 100 do
        local chunk = redis.call('LRANGE', key, -depth - 100, -depth - 1)
        for i = #chunk, 1, -1 do
            message, id = tagged(chunk[i])
            if message then
                redis.call('LREM', key, -1, chunk[i])
                return message, id
            end
        end
        if #chunk < 100 then return end
    end
end

local acting = redis.call('HGET', KEYS[6], worker)
if acting and acting ~= incarnation then
    return redis.error_reply('FENCED ' .. worker .. ' is ' .. acting)
end
local own_only = false
local cordon = redis.call('HGET', KEYS[4], worker)
if cordon then
    cordon = cjson.decode(cordon)
    local over = type(cordon['until']) == 'number' and cordon['until'] <= tonumber(redis.call('TIME')[1])
    if not over and cordon.state ~= 'cordoned' then return end
    own_only = not over
end
-- One look at all the lists: an idle worker asks at every push to any of them, and there may be many idle ones.
if redis.call('EXISTS', unpack(KEYS, FIRST_LIST)) == 0 then return end
local paused = {}
for _, queue in ipairs(redis.call('SMEMBERS', KEYS[5])) do paused[queue] = true end

local function claim(key, lane, level)
    local length = redis.pcall('LLEN', key)
    if type(length) ~= 'number' or length == 0 then return end  -- a key of another type: `doctor` names it
    -- They change nothing, but fail where a key has another type: before the message is taken, not after.
    redis.call('HDEL', KEYS[1], tag)
    redis.call('ZREM', KEYS[2], tag)
    redis.call('HDEL', KEYS[3], tag)
    local message, id = take(key)
    if not message then return end
    local time = redis.call('TIME')
    local ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
    redis.call('HSET', KEYS[1], tag, '[' .. message .. ', "", ' .. quoted(lane) .. ']')
    redis.call('ZADD', KEYS[2], time[1] .. '.' .. string.format('%06d', time[2]), tag)
    redis.call('HSET', KEYS[3], tag, cjson.encode({worker, incarnation, id, lane, level, tonumber(ms)}))
    return {lane, message, ms}
end

for group = 0, (#KEYS - FIRST_LIST + 1) / lanes - 1 do
    local first, level = FIRST_LIST + group * lanes, tonumber(ARGV[5 + 3 * lanes + group])
    if redis.call('EXISTS', unpack(KEYS, first, first + lanes - 1)) > 0 then
        for place = 0, lanes - 1 do
            local lane, queue, own = ARGV[5 + 3 * place], ARGV[6 + 3 * place], ARGV[7 + 3 * place] == '1'
            local taken = (own or not own_only) and not paused[queue] and claim(KEYS[first + place], lane, level)
            if taken then return taken end
        end
    end
end
