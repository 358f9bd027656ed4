--#include message grave
-- Takes one message out of a worker's hands (it is dead, or fenced, or gives it back) and puts it first in a lane, as if
-- it had just not been taken.
--
-- It gets a new delivery tag: whatever the old owner still does with the old one (ack, reject, requeue, close) then finds
-- nothing. It gets its new address too, or a later retry or restore would send it back to where it was.
--
-- KEYS[1] unacked  [2] unacked_index  [3] held   as in claim.lua
-- KEYS[4] attempts  hash  task id -> how many workers died over it, `story|<task id>` -> [[at, worker, why]…]
-- KEYS[5] the list to put it in   [6] the task's ledger key   [7] dead  hash   [8] lease   [9] graves  [10] revoked  zsets, see keys.py
-- ARGV[1] tag  [2] the incarnation that holds it, '' for nobody  [3] new tag  [4] the lane  [5] its level
-- ARGV[6] how many owners may die over it, '' when this is not to be counted  [7] why
-- ARGV[8] '' or: not if it was touched at this time or later (seconds)  [9] '' or an eta for one that has none
-- ARGV[10] seconds to keep the record of an ended task  [11] the term of the caller's lease, or ''
-- Returns 'moved'; 'gone' when that one does not hold it any more; 'early' when the task had been acknowledged before it
-- ran (its message is gone by its own choice; the ledger says so); 'foreign' when the text is not of the expected form
-- (left there); 'cancelled' when a person had cancelled it there (it is gone, the ledger says so); 'quarantined' when too many owners died over it (it is in `dead`, and no longer in the lanes).
-- Errors: STALE when the lease has another term.
-- Invariant: the message is in unacked, or in the list, or in dead; in exactly one of them.

local tag, incarnation, why, untouched = ARGV[1], ARGV[2], ARGV[7], tonumber(ARGV[8])
if ARGV[11] ~= '' then
    local lease = redis.call('GET', KEYS[8])
    if not lease or tostring(cjson.decode(lease).term) ~= ARGV[11] then
        return redis.error_reply('STALE term ' .. ARGV[11])
    end
end

local function ledger_says(state)
    local entry = redis.call('GET', KEYS[6])
    local first, last = (entry or ''):find('"state": "queued"', 1, true)
    if first then redis.call('SET', KEYS[6], entry:sub(1, first - 1) .. '"state": "' .. state .. '"' .. entry:sub(last + 1)) end
    return first
end

local holder = redis.call('HGET', KEYS[3], tag)
local owner = holder and cjson.decode(holder)
if (owner and owner[2] or '') ~= incarnation then return 'gone' end
if untouched then
    local touched = redis.call('ZSCORE', KEYS[2], tag)
    if touched and tonumber(touched) >= untouched then return 'gone' end
end
local record = redis.call('HGET', KEYS[1], tag)
if not record then
    if not owner then return 'gone' end
    redis.call('HDEL', KEYS[3], tag)
    if ledger_says('failed') then redis.call('EXPIRE', KEYS[6], ARGV[10]) end
    return 'early'
end
if redis.call('ZSCORE', KEYS[10], tag) then
    redis.call('ZREM', KEYS[10], tag)
    redis.call('HDEL', KEYS[1], tag)
    redis.call('ZREM', KEYS[2], tag)
    redis.call('HDEL', KEYS[3], tag)
    if ledger_says('cancelled') then redis.call('EXPIRE', KEYS[6], ARGV[10]) end
    return 'cancelled'
end
local raw = record:match('^%[%s*(.*})%s*,%s*"?[^"]*"?%s*,%s*"?[^"]*"?%s*%]$')
local message = raw and parse(raw)
local info = message and message.properties.delivery_info
local text = message and replaced(raw, 'delivery_tag', message.properties.delivery_tag, ARGV[3])
text = text and type(info) == 'table' and replaced(text, 'routing_key', info.routing_key, ARGV[4])
if not text then return 'foreign' end

local id, story = id_of(message), nil
if id ~= '' and ARGV[6] ~= '' then
    local known = redis.call('HGET', KEYS[4], 'story|' .. id)
    story = known and cjson.decode(known) or {}
    story[#story + 1] = {tonumber(redis.call('TIME')[1]), owner and owner[1] or '', why}
    redis.call('HSET', KEYS[4], id, #story, 'story|' .. id, cjson.encode(story))
end
if story and #story > tonumber(ARGV[6]) then
    bury(KEYS[7], KEYS[9], KEYS[6], ARGV[10], id, {
        message = text, lane = ARGV[4], level = tonumber(ARGV[5]), state = 'quarantined', story = story,
        at = story[#story][1], reason = 'its workers died over it ' .. #story .. ' times',
    })
    redis.call('HDEL', KEYS[4], id, 'story|' .. id)
    ledger_says('quarantined')
else
    if ARGV[9] ~= '' then
        local first, last = text:find('"eta": null', 1, true)
        if first then text = text:sub(1, first - 1) .. '"eta": ' .. quoted(ARGV[9]) .. text:sub(last + 1) end
    end
    redis.call('RPUSH', KEYS[5], text)
    story = nil
end
redis.call('HDEL', KEYS[1], tag)
redis.call('ZREM', KEYS[2], tag)
redis.call('HDEL', KEYS[3], tag)
return story and 'quarantined' or 'moved'
