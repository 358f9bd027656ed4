--#include clock end_task ended_record lease message unacked
-- Requeue one message of a worker that is dead, fenced or returns it: put it first in a lane.
--
-- It gets a new delivery tag: a late ack, reject, requeue or close of the old owner, under the old tag, finds nothing.
-- It gets a new address: a later retry or restore would otherwise send it back to the old lane.
--
-- attempts   hash task id -> number of workers that died over it; `story|<task id>` -> [[at, worker, why]…]
-- revoked    zset of tags, see keys.py
-- lanes      set of the worker lanes that were ever used
-- list       the target list;  task  its ledger key
-- incarnation  its holder, '' = none
-- level        of the list it was taken from: the message's own priority stays
-- max_deaths   deaths of owners after which it is quarantined, '' = this is no death
-- untouched_since  '' or seconds: keep it if it was touched at that time or later
-- eta        '' or an eta for a message that has none
-- term       the term of the caller's lease, or ''
-- Returns 'moved'; 'gone' when that incarnation no longer holds it; 'early' when it was acknowledged before it ran (the
-- message is gone, the task has failed); 'foreign' when the text is not of the expected form (it stays); 'cancelled'
-- when it had been revoked; 'quarantined' when too many owners died over it.
-- Errors: STALE when the lease has another term.
-- Invariant: the message is in exactly one of unacked, the list, and dead.

local key = {
    unacked = KEYS[1], unacked_index = KEYS[2], held = KEYS[3], revoked = KEYS[4], lease = KEYS[5], totals = KEYS[6],
    current = KEYS[7], minutes = KEYS[8], hours = KEYS[9], figures = KEYS[10], attempts = KEYS[11], dead = KEYS[12],
    graves = KEYS[13], ended = KEYS[14], lanes = KEYS[15], list = KEYS[16], task = KEYS[17],
}
local arg = {
    tag = ARGV[1], incarnation = ARGV[2], new_tag = ARGV[3], lane = ARGV[4], level = ARGV[5], queue = ARGV[6],
    max_deaths = ARGV[7], why = ARGV[8], untouched_since = ARGV[9], eta = ARGV[10], retention = ARGV[11],
    term = ARGV[12],
}

local refusal = stale(key.lease, arg.term)
if refusal then return refusal end
local holder = redis.call('HGET', key.held, arg.tag)
local owner = read_holder(holder)
if (owner and owner.incarnation or '') ~= arg.incarnation then return 'gone' end
if arg.untouched_since ~= '' then
    local touched = redis.call('ZSCORE', key.unacked_index, arg.tag)
    if touched and tonumber(touched) >= tonumber(arg.untouched_since) then return 'gone' end
end

local now = clock()
local worker = owner and owner.worker or ''

local function release()
    redis.call('HDEL', key.unacked, arg.tag)
    redis.call('ZREM', key.unacked_index, arg.tag)
    redis.call('HDEL', key.held, arg.tag)
end

local function ending(id, outcome, reason, more)
    local task = {
        id = id, key = key.task, at = now, outcome = outcome, worker = worker, queue = arg.queue, error = reason,
        wait_ms = '', run_ms = '', lane = arg.lane, level = tonumber(arg.level),
    }
    for name, value in pairs(more) do task[name] = value end
    check_end(key, task, now)
    return task
end

local record = redis.call('HGET', key.unacked, arg.tag)
if not record and not owner then return 'gone' end
if not record or redis.call('ZSCORE', key.revoked, arg.tag) then
    local outcome = record and 'cancelled' or 'failed'
    local reason = record and '' or 'acknowledged before it ran, and its worker ended'
    local entry, task = redis.call('GET', key.task), nil
    if not entry or field(entry, 'state') == 'queued' then
        local ended = {outcome = outcome, worker = worker, error = reason, wait_ms = '', run_ms = ''}
        local more = entry and {record = ended_record(entry, ended, now), entry = entry} or {}
        task = ending(owner and owner.id or '', outcome, reason, more)
    end
    redis.call('ZREM', key.revoked, arg.tag)
    release()
    if task then end_task(key, task, arg.retention) end
    return record and 'cancelled' or 'early'
end

local raw = unwrapped(record)
local message = raw and parse(raw)
local text = message and replaced(raw, 'delivery_tag', message.properties.delivery_tag, arg.new_tag)
text = text and readdressed(text, message, arg.lane)
if not text then return 'foreign' end

local id, story = id_of(message), nil
if id ~= '' and arg.max_deaths ~= '' then
    story = read_story(redis.call('HGET', key.attempts, 'story|' .. id))
    story[#story + 1] = {math.floor(now), worker, arg.why}
end
if story and #story > tonumber(arg.max_deaths) then
    local entry = redis.call('GET', key.task)
    local is_open = entry and field(entry, 'state') == 'queued'
    local task = ending(id, 'quarantined', 'its workers died over it ' .. times(#story), {
        record = is_open and with_value(entry, 'state', '"quarantined"') or nil, message = text, story = story,
    })
    end_task(key, task, arg.retention)
    release()
    return 'quarantined'
end
if arg.eta ~= '' and field(text, 'eta') == 'null' then text = with_value(text, 'eta', quoted(arg.eta)) end
redis.call('LLEN', key.list)  -- fails where it has another type, before the first write
if story then
    redis.call('HSET', key.attempts, id, #story, 'story|' .. id, cjson.encode(story))
end
if arg.lane:find('.', 1, true) then redis.call('SADD', key.lanes, arg.lane) end
redis.call('RPUSH', key.list, text)
release()
return 'moved'
