--- The latest events: a bounded log that other processes can follow.
local json = require "dockrun.core.json"
local runtime = require "dockrun.core.runtime"

---@class Store
local M = {}

local POLL = 0.1  -- seconds between two checks for new events; a check reads one page at most

--- Adds an event, and drops the oldest beyond `keep_events`. Every process sees it at once. A loss of power may lose the
--- last ones (synchronous = NORMAL): no decision depends on them.
---@param event table  see agent/emitter.lua; goes through JSON
---@return integer? id  grows with each event
---@return table? err
function M:add_event(event)
  local db = self.db.inside and self.db or self.log  -- within a transaction the event is a part of it
  return db:transaction(function()
    local id, err = db:value(
      [[INSERT INTO events (time, job, "group", task, alloc, event, json) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id]],
      event.time, event.job, event.group, event.task, event.alloc, event.event, json.encode(event))
    if not id then return nil, err end
    db:run("DELETE FROM events WHERE id <= ?", id - self.keep_events)
    return id
  end)
end

--- The events as they were added, each with its `id`, the oldest first.
---@param filter? { job?: string, after?: integer, limit?: integer }  after: an id; limit: only the last so many
---@return table[]? events
---@return table? err
function M:events(filter)
  filter = filter or {}
  local rows, err = self.db:rows([[
    SELECT id, json FROM (
      SELECT id, json FROM events WHERE id > ?1 AND (?2 IS NULL OR job = ?2) ORDER BY id DESC LIMIT ?3
    ) ORDER BY id]], filter.after or 0, filter.job, filter.limit or -1)
  if not rows then return nil, err end
  for i, row in ipairs(rows) do
    rows[i] = json.decode(row.json)
    rows[i].id = row.id
  end
  return rows
end

-- Changes whenever a commit may have added events: data_version counts those of other connections, total_changes ours.
-- https://www.sqlite.org/pragma.html#pragma_data_version
local function written(self)
  local mark, err = self.db:value "SELECT data_version || '/' || total_changes() FROM pragma_data_version"
  return mark or error(err, 0)
end

--- Every event after one, and then each new one of any process, until the store is closed. Raises if the database fails.
---@param after? integer  an id; if left out, only new events
---@param filter? { job?: string }
---@return fun(): table?
function M:follow(after, filter)
  local batch, at, seen = {}, 0, nil
  local job = filter and filter.job
  if not after then
    local last, err = self.db:value "SELECT coalesce(max(id), 0) FROM events"
    after = last or error(err, 0)
  end
  return function()
    while not self.closed do
      at = at + 1
      if batch[at] then
        after = batch[at].id
        return batch[at]
      end
      local mark = written(self)
      if mark == seen then
        runtime.sleep(POLL)
      else
        local found, err = self:events { after = after, job = job }
        batch, at, seen = found or error(err, 0), 0, mark
      end
    end
  end
end

return M
