--- The records of jobs, allocations, tasks, intents and images. Every function returns nil, err if the database fails; see
--- database.lua for the kinds.
local json = require "dockrun.core.json"
local owners = require "dockrun.store.owner"
local mapper = require "dockrun.store.mapper"
local tables = require "dockrun.util.tables"
local time = require "dockrun.util.time"

---@class Store
local M = {}

local job_shape = mapper.shape("jobs", { "name" }, { "definition", "status", "submitted_at", "endpoint", "source" })
local alloc_shape = mapper.shape("allocations", { "id" }, { "job", "group", "index", "meta", "owner" })
local task_shape = mapper.shape("tasks", { "alloc", "task" }, {
  "state", "container_id", "image", "image_id", "ports", "exit_code", "signal", "oom", "restarts", "restart_count",
  "restart_since", "started_at", "finished_at", "definition", "detail",
}, { "job", "group", "index" })
local image_shape = mapper.shape("images", { "reference" }, { "id", "pulled_at", "last_used_at" })

-- ---- jobs -------------------------------------------------------------------------------------

---@class JobRecord
---@field name string
---@field definition table      normalised, without functions
---@field status string
---@field submitted_at? string  now if left out
---@field endpoint? string      the engine that it runs on
---@field source? table         the file that it was read from, see job/load.lua

--- Puts a job. It replaces the one of that name.
---@param job JobRecord
---@return true? ok
---@return table? err
function M:put_job(job) return mapper.put(self.db, job_shape, tables.merge({ submitted_at = time.format() }, job)) end

---@return JobRecord[]? jobs  by name
---@return table? err
function M:jobs() return mapper.list(self.db, "SELECT * FROM jobs ORDER BY name") end

---@param name string
---@return JobRecord? job  nil, nil if there is none
---@return table? err
function M:job(name) return mapper.one(self.db, "SELECT * FROM jobs WHERE name = ?", name) end

--- Whether a job runs on another engine than this one.
---@param name string
---@param endpoint string  this engine's
---@return string? other  its endpoint; nil if the job does not run, or runs here
---@return table? err
function M:runs_elsewhere(name, endpoint)
  local known, err = self:job(name)
  local elsewhere = known and known.status == "running" and known.endpoint ~= endpoint
  return elsewhere and known.endpoint or nil, err
end

local TASKS = [[SELECT tasks.*, job, "group", "index" FROM tasks JOIN allocations ON allocations.id = alloc ]]

-- Removes allocations, or the job that has them. For each container that may still exist an intent to remove it is kept.
local function remove(self, statement, which, ...)
  local values = table.pack(...)
  return self.db:transaction(function()
    local tasks, err = mapper.list(self.db, TASKS .. [[WHERE (container_id IS NOT NULL OR detail LIKE '%"intent":%')
      AND alloc IN (SELECT id FROM allocations WHERE ]] .. which .. ")", table.unpack(values, 1, values.n))
    if not tasks then return nil, err end
    for _, task in ipairs(tasks) do
      self:intend(task.alloc, task.task, "remove", {
        job = task.job, container_id = task.container_id, intent = (task.detail or {}).intent,
        endpoint = (self:job(task.job) or {}).endpoint,
      })
    end
    return mapper.affect(self.db, statement, table.unpack(values, 1, values.n))
  end)
end

local THAT_JOB = "name = ?1 AND submitted_at = coalesce(?2, submitted_at)"

--- Removes a job with its allocations and their tasks. Leases, images and events are kept: they are removed separately.
---@param name string
---@param submitted_at? string  only if it was not submitted again since
---@return boolean? removed  false if there was none
---@return table? err
function M:remove_job(name, submitted_at)
  return remove(self, "DELETE FROM jobs WHERE " .. THAT_JOB,
    "job IN (SELECT name FROM jobs WHERE " .. THAT_JOB .. ")", name, submitted_at)
end

--- Sets the status of a job.
---@param name string
---@param status string
---@return boolean? found
---@return table? err
function M:set_job_status(name, status)
  return mapper.affect(self.db, "UPDATE jobs SET status = ? WHERE name = ?", status, name)
end

-- ---- allocations ------------------------------------------------------------------------------

---@class AllocRecord
---@field id string
---@field job string    which must exist
---@field group string
---@field index integer from 0
---@field meta? table
---@field owner? Owner  the process that manages it: the one that put it last

--- Puts an allocation. This process becomes its owner.
---@param alloc AllocRecord
---@return true? ok
---@return table? err  kind "constraint" if its job is missing
function M:put_alloc(alloc)
  local record = tables.merge(alloc)
  record.owner = owners.format(self.owner)
  return mapper.put(self.db, alloc_shape, record)
end

---@param filter? { job?: string }
---@return AllocRecord[]? allocs  by job, group and index
---@return table? err
function M:allocs(filter)
  return mapper.list(self.db, [[SELECT * FROM allocations WHERE ?1 IS NULL OR job = ?1 ORDER BY job, "group", "index", id]],
    filter and filter.job)
end

--- How many allocations of all jobs have not ended.
---@return integer? count
---@return table? err
function M:count_allocs()
  return self.db:value [[SELECT count(*) FROM allocations WHERE
    EXISTS (SELECT 1 FROM tasks WHERE alloc = allocations.id AND state NOT IN ('dead', 'failed'))
    OR NOT EXISTS (SELECT 1 FROM tasks WHERE alloc = allocations.id)]]
end

---@param id string
---@return AllocRecord? alloc  nil, nil if there is none
---@return table? err
function M:alloc(id) return mapper.one(self.db, "SELECT * FROM allocations WHERE id = ?", id) end

--- Removes older allocations of the same group and index if all their tasks have ended.
---@param place { id: string, job: string, group: string, index: integer }
---@return boolean? removed
---@return table? err
function M:remove_ended(place)
  local which = [[id != ? AND job = ? AND "group" = ? AND "index" = ?
    AND NOT EXISTS (SELECT 1 FROM tasks WHERE alloc = allocations.id AND state NOT IN ('dead', 'failed'))]]
  return remove(self, "DELETE FROM allocations WHERE " .. which, which, place.id, place.job, place.group, place.index)
end

--- Removes an allocation with its tasks.
---@param id string
---@return boolean? removed
---@return table? err
function M:remove_alloc(id) return remove(self, "DELETE FROM allocations WHERE id = ?", "id = ?", id) end

-- ---- tasks ------------------------------------------------------------------------------------

---@class TaskRecord
---@field alloc string          which must exist
---@field task string
---@field state string
---@field container_id? string
---@field image? string         reference
---@field image_id? string
---@field ports? table[]        as in events
---@field exit_code? integer
---@field signal? integer
---@field oom? boolean
---@field restarts? integer       in all
---@field restart_count? integer  in the restart policy's interval
---@field restart_since? number   when that interval began, in seconds since 1970
---@field started_at? string
---@field finished_at? string
---@field definition? table     as written, without functions
---@field detail? table         all other fields, see task/snapshot.lua
---@field job? string           the last three are the allocation's: read only
---@field group? string
---@field index? integer

--- Puts a task. It replaces the old record whole: a field that is left out is removed.
---@param task TaskRecord
---@return true? ok
---@return table? err  kind "constraint" if its allocation is missing
function M:put_task(task) return mapper.put(self.db, task_shape, task) end

---@param filter? { job?: string, alloc?: string }
---@return TaskRecord[]? tasks  by job, group, index and name
---@return table? err
function M:tasks(filter)
  return mapper.list(self.db, TASKS .. [[
    WHERE (?1 IS NULL OR job = ?1) AND (?2 IS NULL OR alloc = ?2) ORDER BY job, "group", "index", alloc, task]],
    filter and filter.job, filter and filter.alloc)
end

---@param alloc string
---@param task string
---@return TaskRecord? task  nil, nil if there is none
---@return table? err
function M:task(alloc, task) return mapper.one(self.db, TASKS .. "WHERE alloc = ? AND task = ?", alloc, task) end

--- Records that the container of a task is gone.
---@param alloc string
---@param task string
---@param id string
---@return boolean? found  false if the task has another container or does not exist
---@return table? err
function M:container_gone(alloc, task, id)
  return mapper.affect(self.db, [[UPDATE tasks SET container_id = NULL, detail = json_remove(detail, '$.intent')
    WHERE alloc = ? AND task = ? AND coalesce(container_id, ?3) = ?3]], alloc, task, id)
end

-- ---- intents ----------------------------------------------------------------------------------

---@class Intent
---@field id integer
---@field alloc string
---@field task string
---@field action string
---@field data? any
---@field at string
---@field owner Owner  the process that began it; while it is alive, it is working on it

--- Records what this process is about to do. After a crash, the next process finds the intent, and finishes or undoes it.
---@param alloc string
---@param task string
---@param action string  "pull": see driver/image.lua; "remove": a container, of { job, container_id, intent, endpoint }
---@param data? any      what is needed to finish it; goes through JSON
---@return integer? id
---@return table? err
function M:intend(alloc, task, action, data)
  return self.db:value(
    "INSERT INTO intents (alloc, task, action, data, at, owner) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
    alloc, task, action, data ~= nil and json.encode(data) or nil, time.format(), owners.format(self.owner))
end

--- Removes an intent that is done, or undone.
---@param id integer
---@return boolean? removed  false if it was already
---@return table? err
function M:done(id) return mapper.affect(self.db, "DELETE FROM intents WHERE id = ?", id) end

--- The intents that are not done. If the owner is alive, it is working on it.
---@return Intent[]? intents  the oldest first
---@return table? err
function M:intents() return mapper.list(self.db, "SELECT * FROM intents ORDER BY id") end

-- ---- images -----------------------------------------------------------------------------------

---@class ImageRecord
---@field reference string
---@field id string
---@field pulled_at? string     now if left out
---@field last_used_at? string  now if left out

--- Records an image that dockrun has pulled.
---@param image ImageRecord
---@return true? ok
---@return table? err
function M:put_image(image)
  local now = time.format()
  return mapper.put(self.db, image_shape, tables.merge({ pulled_at = now, last_used_at = now }, image))
end

---@return ImageRecord[]? images  by reference
---@return table? err
function M:images() return mapper.list(self.db, "SELECT * FROM images ORDER BY reference") end

---@param reference string
---@return ImageRecord? image  nil, nil if dockrun has not pulled it
---@return table? err
function M:image(reference) return mapper.one(self.db, "SELECT * FROM images WHERE reference = ?", reference) end

--- Records that an image is in use now, so that it is kept for a while.
---@param reference string
---@return boolean? found
---@return table? err
function M:touch_image(reference)
  return mapper.affect(self.db, "UPDATE images SET last_used_at = ? WHERE reference = ?", time.format(), reference)
end

--- Whether a running job, or a task that has not ended, uses an image. A task whose image is not known yet may use any.
---@param reference string
---@return boolean? used
---@return table? err
function M:uses_image(reference)
  local count, err = self.db:value([[
    SELECT (SELECT count(*) FROM tasks WHERE (image = ?1 OR image IS NULL) AND state NOT IN ('dead', 'failed'))
      + (SELECT count(*) FROM jobs, json_each(definition, '$.images') AS image WHERE status = 'running' AND image.value = ?1)]],
    reference)
  return count and count > 0, err
end

---@param reference string
---@return boolean? removed
---@return table? err
function M:forget_image(reference) return mapper.affect(self.db, "DELETE FROM images WHERE reference = ?", reference) end

return M
