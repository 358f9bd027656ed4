-- The compact form of open ledger records, see compact_record.py.

-- Of a record in that form: the fields before `open`, the items enqueued_at, queue and level, and the position of the
-- rest; nil for another one.
local function first_items(record)
    local named, at, queue, level, rest = record:match(
        '^{"state":%s*"queued",%s*(.-)"open":%s*%[([%d.]+),%s*"([^"]*)",%s*(%d+)()')
    -- A record with names may have arguments of that form.
    if at and not named:find('"enqueued_at"', 1, true) then return named, at, queue, level, rest end
end

-- The text of a record with the names of its place: enqueued_at, queue, lane and level. They come first, so that no
-- argument of the task is found in their stead. A record in another form has them already, and is returned unchanged.
local function with_place(record)
    local named, at, queue, level, rest = first_items(record)
    if not named then return record end
    local lane = named:find('"lane":', 1, true) and '' or '"lane":"' .. queue .. '",'
    return table.concat({
        '{"state":"queued","enqueued_at":', at, ',"queue":"', queue, '",', lane, '"level":', level, ',', named,
        '"open":[', at, ',"', queue, '",', level, record:sub(rest),
    })
end

-- The fields of a decoded record by their names. Of arguments that are written as their first one alone, only that.
local function named(fields)
    local open = fields.open
    if type(open) ~= 'table' then return fields end
    local names = {
        'enqueued_at', 'queue', 'level', 'estimated_minutes', 'task', 'content_type', 'submission', 'attempt', 'args',
    }
    local tasks = {
        'morag.worker.process_file_task', 'morag.worker.process_url_task', 'morag.worker.process_web_page_task',
        'morag.worker.process_youtube_video_task',
    }
    for i, name in ipairs(names) do
        if fields[name] == nil and open[i] ~= cjson.null then fields[name] = open[i] end
    end
    if type(fields.args) == 'string' then fields.args = {fields.args} end
    fields.task = tasks[fields.task] or fields.task
    fields.lane, fields.priority = fields.lane or fields.queue, fields.priority or 'NORMAL'
    return fields
end
