--#include clock cordon message waiting
-- Claim the next message for one worker and record the holder, in one step.
--
-- kombu pops first and writes `unacked` second: a worker killed in between has destroyed the message.
--
-- unacked, unacked_index  kombu's: hash tag -> [message, exchange, routing key]; zset tag -> seconds
-- held          hash tag -> [worker, incarnation, task id, lane, level, claimed at ms]
-- cordons       hash worker -> {"state": …, "until": seconds or null}
-- paused        set of queue names
-- incarnations  hash worker -> the one incarnation that may act under its name
-- bells, waiting, tracker  see wait.lua
-- waits         '1' for a worker that has been waiting since its last claim
-- before        the levels that come before the one of its last message, as in `levels`
-- prefix, sep   lists are named prefix .. lane [.. sep .. level]: a busy worker needs the names of the first few only
-- levels        in the order in which they are read, separated by blanks
-- lanes         in the order in which they are read: name, its queue, '1' for a lane of this worker
-- Returns {lane, message, claimed at ms, level}, or {nil, why, waiting workers, own left, shared left} when there is
-- nothing to claim. Why: 'tracked' by another worker, 'untracked', or 'closed': this worker is cordoned. Left are the
-- messages that it may not claim.
-- Errors: FENCED when another incarnation acts under this worker's name.
-- Invariant: a message is in a lane, or in unacked with a holder; never in neither.

local key = {
    unacked = KEYS[1], unacked_index = KEYS[2], held = KEYS[3], cordons = KEYS[4], paused = KEYS[5],
    incarnations = KEYS[6], bells = KEYS[7], waiting = KEYS[8], tracker = KEYS[9],
}
local arg = {
    tag = ARGV[1], waits = ARGV[2], before = ARGV[3], worker = ARGV[4], incarnation = ARGV[5], prefix = ARGV[6],
    sep = ARGV[7], levels = ARGV[8],
}
local first_lane = 9  -- ARGV lanes {'name', 'queue', 'is_own'}

local DEEPEST = 1000  -- messages of a list that are tried; those that are not Celery's stay where they are

-- The message with its new tag, and its task id; nil for a message that is not Celery's.
local function tagged(raw)
    local message = parse(raw)
    if not message then return nil end
    return replaced(raw, 'delivery_tag', message.properties.delivery_tag, arg.tag), id_of(message)
end

-- Takes the first message of Celery out of a list: its text, its text with the new tag, and its task id.
local function take(list)
    local raw = redis.pcall('LINDEX', list, -1)
    if type(raw) ~= 'string' then return end  -- empty, or a key of another type: `doctor` reports it
    local message, id = tagged(raw)
    if message then return redis.call('RPOP', list), message, id end
    for depth = 1, DEEPEST, 100 do
        local chunk = redis.call('LRANGE', list, -depth - 100, -depth - 1)
        for i = #chunk, 1, -1 do
            message, id = tagged(chunk[i])
            if message then
                redis.call('LREM', list, -1, chunk[i])
                return chunk[i], message, id
            end
        end
        if #chunk < 100 then return end
    end
end

local function hold(message, id, lane, level, now)
    local ms = string.format('%.0f', math.floor(now * 1000))
    redis.call('HSET', key.unacked, arg.tag, '[' .. message .. ', "", ' .. quoted(lane) .. ']')
    redis.call('ZADD', key.unacked_index, string.format('%.6f', now), arg.tag)
    local holder = {arg.worker, arg.incarnation, id, lane, level, tonumber(ms)}
    redis.call('HSET', key.held, arg.tag, cjson.encode(holder))
    return {lane, message, ms, level}
end

-- The message is taken first: a server out of memory lets a script continue whose first write frees some. It goes back
-- where a record cannot be written, because a key has another type.
local function claim(list, lane, level, now)
    local raw, message, id = take(list)
    if not raw then return end
    local ok, answer = pcall(hold, message, id, lane, level, now)
    if ok then return answer end
    redis.pcall('HDEL', key.unacked, arg.tag)
    redis.pcall('ZREM', key.unacked_index, arg.tag)
    redis.call('RPUSH', list, raw)
    return {err = type(answer) == 'table' and answer.err or answer}  -- Redis raises a table, Valkey a string
end

local function is_tracker() return redis.call('GET', key.tracker) == arg.worker end

-- This worker no longer waits. It has a message, and may be blocked until that has run, or it is cordoned. A message of
-- a shared lane that a worker found by itself shows that the tracker does not answer.
local function stop_waiting(now, must_replace, more_waits)
    redis.call('ZREM', key.waiting, arg.worker)
    if must_replace or is_tracker() then
        appoint_tracker(key.waiting, key.tracker, key.bells, now, more_waits)
    end
end

local function list_of(lane, level)
    return arg.prefix .. lane .. (level == '0' and '' or arg.sep .. level)
end

-- All lists of these levels, or of all levels, that `is_wanted` by their queue and whether they are this worker's.
local function lists(levels, is_wanted)
    local found = {}
    for one in (levels or arg.levels):gmatch('%d+') do
        for i = first_lane, #ARGV, 3 do
            if not is_wanted or is_wanted(ARGV[i + 1], ARGV[i + 2]) then found[#found + 1] = list_of(ARGV[i], one) end
        end
    end
    return found
end

local function any_exists(names) return redis.call('EXISTS', unpack(names)) > 0 end

local paused = {}
local function is_open(cordon, queue, is_own) return (is_own == '1' or cordon == '') and not paused[queue] end

local function more_waits()
    return any_exists(lists(nil, function(queue, is_own) return is_open('', queue, is_own) end))
end

local function count_left(wanted)
    local count = 0
    for _, list in ipairs(lists(nil, function(_, is_own) return is_own == wanted end)) do
        local length = redis.pcall('LLEN', list)
        if type(length) == 'number' then count = count + length end
    end
    return count
end

local function nothing(cordon, now, is_empty)
    local why = 'closed'
    if cordon ~= '' then
        if arg.waits == '1' then stop_waiting(now) end
    else
        local tracker = redis.call('GET', key.tracker)
        why = tracker and tracker ~= arg.worker and 'tracked' or 'untracked'
        -- To look again keeps its place among those that wait.
        if arg.waits == '1' and why == 'tracked' then
            redis.call('ZADD', key.waiting, string.format('%.6f', now), arg.worker)
        end
    end
    local own_left, shared_left = 0, 0
    if not is_empty and any_exists(lists()) then own_left, shared_left = count_left('1'), count_left('0') end
    return {false, why, redis.call('ZCARD', key.waiting), own_left, shared_left}
end

local acting = redis.call('HGET', key.incarnations, arg.worker)
if acting and acting ~= arg.incarnation then
    return redis.error_reply('FENCED ' .. arg.worker .. ' is ' .. acting)
end
local now = clock()
local cordon = ''
if redis.call('EXISTS', key.cordons, key.paused) > 0 then
    cordon = cordon_state(key.cordons, arg.worker)
    if cordon ~= '' and cordon ~= 'cordoned' then return nothing(cordon, now) end
    for _, queue in ipairs(redis.call('SMEMBERS', key.paused)) do paused[queue] = true end
end

-- A worker that waits mostly finds nothing, a busy one nothing before the level of its last message: one command tells.
if arg.waits == '1' and not any_exists(lists()) then return nothing(cordon, now, true) end
local levels = arg.levels
if arg.before ~= '' and not any_exists(lists(arg.before)) then levels = levels:sub(#arg.before + 2) end

local first_level = levels:match('%d+')  -- of a busy worker: most likely it has a message
for level in levels:gmatch('%d+') do
    if level == first_level or any_exists(lists(level)) then
        for i = first_lane, #ARGV, 3 do
            local name, queue, is_own = ARGV[i], ARGV[i + 1], ARGV[i + 2]
            local taken = is_open(cordon, queue, is_own) and claim(list_of(name, level), name, tonumber(level), now)
            if taken then
                -- Only a convenience: where these keys have another type, the message is claimed all the same.
                if arg.waits == '1' and not taken.err then
                    pcall(stop_waiting, now, is_own ~= '1', more_waits())
                end
                return taken
            end
        end
    end
end
return nothing(cordon, now)
