-- Images: what a reference means, when it is pulled, and when it goes.
local validators = require "dockrun.job.validators"
local credentials = require "dockrun.driver.credentials"
local job_files = require "dockrun.driver.job_files"
local references = require "dockrun.job.reference"
local runtime = require "dockrun.core.runtime"
local queue = require "dockrun.core.queue"

local M = {}

--- Takes an image reference apart, see job/reference.lua.
---@param text string
---@return Reference? reference
---@return table? err  kind "invalid"
function M.parse(text)
  local found, why = references.parse(text)
  if not found then return nil, runtime.error("invalid", why) end
  return found
end

--- The whole name of an image that a job asks for: "redis" -> "docker.io/library/redis:latest" as the engine has it; nil
--- while it holds names that are filled in later.
---@param text string
---@return string?
function M.planned(text)
  local found = not validators.is_open(text) and references.parse(text)
  return found and found.full or nil
end

---@class ImagePuller
---@field engine table
---@field options table<string, any>
---@field state Store                   which images dockrun pulled
---@field flights table<string, table>  pulls under way, by reference
---@field pulled table<string, boolean> references that this process used, and that dockrun brought to the host
---@field unsure table<integer, boolean> notes of pulls here whose end was not seen: they may have brought something
local Puller = {}
Puller.__index = Puller

---@param engine table
---@param options table<string, any>
---@param state Store
---@return ImagePuller
function M.new(engine, options, state)
  return setmetatable({ engine = engine, options = options, state = state, flights = {}, pulled = {}, unsure = {} }, Puller)
end

-- Notes before a pull what it will bring, and after it what it brought. Where a process is killed in between, or does not
-- hear how the pull ended, the note stays, and `settle` sees what came of it.
---@return integer? intent
---@return table err_or_scope  to be closed
local function begin_to_bring(self, reference, owner)
  owner = owner or { alloc = "", task = "" }
  local intent, err = self.state:intend(owner.alloc, owner.task, "pull", {
    reference = reference.full, endpoint = self.engine:endpoint(),
  })
  if not intent then return nil, err end
  self.unsure[intent] = false
  return intent, setmetatable({}, { __close = function()
    if self.unsure[intent] == false then self.unsure[intent] = true end
  end })
end

-- `before` is the image of dockrun's that had the reference until now: without a name it still takes its room.
local function brought(self, intent, reference, image, before)
  local nameless = before and before.Id ~= image.Id and before.Id or nil
  local ok, err = self.state:transaction(function()
    self.state:put_image { reference = reference.full, id = image.Id }
    if nameless then self.state:put_image { reference = nameless, id = nameless } end
    self.state:done(intent)
  end)
  if not ok then return nil, err end
  self.unsure[intent], self.pulled[reference.full] = nil, true
  if nameless then self.pulled[nameless] = true end
  return true
end

-- Sees what came of one.
local function settle(self, intent)
  local reference = intent.data.reference
  local here, err = self.engine:image_inspect(reference)
  if not here and err.status ~= 404 then return nil, err end
  local ok
  ok, err = self.state:transaction(function()
    if here then self.state:put_image { reference = reference, id = here.Id } end
    self.state:done(intent.id)
  end)
  if not ok then return nil, err end
  self.unsure[intent.id] = nil
  if here then self.pulled[reference] = true end
  return true
end

--- Sees what came of the pulls of which nobody saw the end: of processes that have ended, and of those here that were
--- broken off.
---@param is_alive fun(owner: Owner): boolean
---@return true? ok
---@return table? err
function Puller:settle(is_alive)
  local intents, err = self.state:intents()
  if not intents then return nil, err end
  for _, intent in ipairs(intents) do
    local endpoint = intent.data and intent.data.endpoint  -- nil: of an older dockrun
    local here = intent.action == "pull" and (not endpoint or endpoint == self.engine:endpoint())
    if here and (self.unsure[intent.id] or not is_alive(intent.owner)) then
      local ok
      ok, err = settle(self, intent)
      if not ok then return nil, err end
    end
  end
  return true
end

-- The same for those that were broken off here.
local function settle_own(self)
  for _, unsure in pairs(self.unsure) do
    if unsure then return self:settle(function() return true end) end
  end
  return true
end

-- Adds up the layers' progress; docker tells of each layer for itself.
local function add_up(layers, message)
  local detail = message.progressDetail
  if not message.id or not detail or not detail.total then return end
  local whole = math.max(detail.total, 0)
  if message.status == "Downloading" then layers[message.id] = { math.max(math.min(detail.current or 0, whole), 0), whole } end
  local current, total = 0.0, 0.0
  for _, layer in pairs(layers) do current, total = current + layer[1], total + layer[2] end
  return current, total
end

-- What a registry says of an image that it does not have, or not for us: asking again does not help.
local final_texts = { "not found", "manifest unknown", "does not exist", "denied", "unauthorized", "no basic auth" }

local function is_final(why)
  for _, text in ipairs(final_texts) do
    if why:find(text, 1, true) then return true end
  end
  return false
end

local function pull_error(reference, why, kind)
  return runtime.error(kind or "pull", ("cannot pull %s: %s"):format(reference.full, why), {
    image = reference.full, final = is_final(why),
  })
end

local function pull(self, reference, auth, progress)
  local stream <close>, err = self.engine:image_pull {
    fromImage = reference.name, tag = reference.digest or reference.tag, auth = auth,
    timeout = self.options["docker.pull_activity_timeout"],
  }
  if not stream then
    local down = err.kind == "unreachable" or err.kind == "timeout"
    return nil, pull_error(reference, tostring(err), down and err.kind or nil)
  end
  local idle, layers = self.options["docker.pull_activity_timeout"], {}
  while true do
    local message, why = stream:read(idle)
    if message == nil and why then
      if why.kind ~= "timeout" then return nil, pull_error(reference, tostring(why), why.kind) end
      return nil, pull_error(reference, ("no progress for %g s (docker.pull_activity_timeout)"):format(idle))
    elseif message == nil then
      return true
    elseif message.error or message.errorDetail then
      return nil, pull_error(reference, message.errorDetail and message.errorDetail.message or message.error or "no reason given")
    else
      local current, total = add_up(layers, message)
      if total then progress(current, total) end
    end
  end
end

-- A pull for all who wait. However it ends, they all hear of it.
local function fly(self, flight, reference, auth)
  local done, ok, err = pcall(pull, self, reference, auth, function(...)
    for listener in pairs(flight.listeners) do
      if not pcall(listener, ...) then flight.listeners[listener] = nil end  -- the pull is not only for that one
    end
  end)
  if self.flights[reference.full] == flight then self.flights[reference.full] = nil end
  flight.result = done and { ok, err } or { nil, pull_error(reference, tostring(ok)) }
  flight.done:close()
end

-- One pull for each reference at a time; everybody who wants it waits for the same one, as long as he has patience. It
-- ends when nobody waits.
local function join_pull(self, reference, auth, progress, patience)
  local limit = patience or self.options["docker.pull_timeout"]
  local flight = self.flights[reference.full]
  if not flight then
    flight = { waiting = 0, listeners = {} }
    flight.task = runtime.spawn_free(fly, self, flight, reference, auth)
    flight.done = queue.new()
    self.flights[reference.full] = flight
  end
  flight.waiting = flight.waiting + 1
  if progress then flight.listeners[progress] = true end
  local ok, why = pcall(flight.done.pop, flight.done, limit)
  flight.waiting = flight.waiting - 1
  if progress then flight.listeners[progress] = nil end
  if flight.waiting == 0 and not flight.result then
    flight.task:cancel()
    self.flights[reference.full] = nil
  end
  if not ok then error(why, 0) end  -- cancelled while it waited
  if not flight.result then
    local setting = patience and "image_pull_timeout" or "docker.pull_timeout"
    return nil, pull_error(reference, ("not done after %g s (%s)"):format(limit, setting))
  end
  return flight.result[1], flight.result[2]
end

--- Whether a reference is in use: by any container, by a job that runs, or by a task that may come to a container yet.
---@param reference string
---@param but? table<string, boolean>  containers that do not count, by id
---@return boolean? used
---@return table? err
function Puller:is_used(reference, but)
  local containers, err = self.engine:container_list { all = true }
  if not containers then return nil, err end
  for _, container in ipairs(containers) do
    local uses = container.Image == reference or container.ImageID == reference
    if uses and not (but and but[container.Id]) then return true end
  end
  return self.state:uses_image(reference)
end

local function result(self, reference, image)
  local config = type(image.Config) == "table" and image.Config or {}
  return {
    id = image.Id, reference = reference, pulled = self.pulled[reference.full] or false, stop_signal = config.StopSignal,
  }
end

--- Makes sure that an image is on the host. `latest` is looked for anew each time, any other tag only if it is missing.
--- Where a newer `latest` cannot be had but one is here, that one serves, and `warn` is told why.
---@param text string  the reference as the job has it
---@param opts? { owner?: { alloc: string, task: string },
---  force?: boolean, auth?: table, auth_soft_fail?: boolean, timeout?: number, pulling?: fun(), warn?: fun(message: string),
---  progress?: fun(current: integer, total: integer) }  force: pull in any case; timeout: instead of docker.pull_timeout
---@return { id: string, reference: Reference, pulled: boolean, stop_signal?: string }? image  pulled: it was not on the host
---  before; stop_signal: its STOPSIGNAL
---@return table? err  kind "pull" (`final`: another try will not help), "auth", "invalid", "unreachable" or "engine"
function Puller:ensure(text, opts)
  opts = opts or {}
  local reference, err = M.parse(text)
  if not reference then return nil, err end
  local settled, here
  settled, err = settle_own(self)
  if not settled then return nil, err end
  local row = self.state:image(reference.full)  -- first: who removes an image forgets it afterwards
  here, err = self.engine:image_inspect(reference.full)
  if not here and err.status ~= 404 then return nil, err end
  if here then self.pulled[reference.full] = row and row.id == here.Id or nil end
  if here and reference.tag ~= "latest" and not opts.force then
    return result(self, reference, here)
  end
  if opts.pulling then opts.pulling() end
  local auth
  auth, err = credentials.find(reference.name, opts.auth, self.options)
  if err and not opts.auth_soft_fail then return nil, err end
  if err and opts.warn then opts.warn(("%s; pulling without"):format(err)) end
  local intent, scope
  if not here or self.pulled[reference.full] then
    intent, scope = begin_to_bring(self, reference, opts.owner)
    if not intent then return nil, scope end
  end
  local _ <close> = scope
  local ok
  ok, err = join_pull(self, reference, auth, opts.progress, opts.timeout)
  if not ok then
    if not here or opts.force or err.kind ~= "pull" then return nil, err end
    if opts.warn then opts.warn(("%s; using the one that is here"):format(err)) end
    return result(self, reference, here)
  end
  local image
  image, err = self.engine:image_inspect(reference.full)
  if not image then return nil, pull_error(reference, tostring(err)) end
  if intent then
    ok, err = brought(self, intent, reference, image, here)
    if not ok then return nil, err end
  end
  return result(self, reference, image)
end

--- Loads an image from an archive, as `docker save` makes them, instead of pulling it.
---@param text string  the reference as the job has it: the archive must hold it
---@param read fun(): string?  gives the archive piece by piece
---@param owner? { alloc: string, task: string }
---@return { id: string, reference: Reference, pulled: boolean, stop_signal?: string }? image  pulled: it was not on the host
---  before; stop_signal: its STOPSIGNAL
---@return table? err  kind "pull", "invalid", "unreachable" or "engine"
function Puller:load(text, read, owner)
  local reference, err = M.parse(text)
  if not reference then return nil, err end
  local before = self.engine:image_inspect(reference.full)
  local intent, scope
  if not before then
    intent, scope = begin_to_bring(self, reference, owner)
    if not intent then return nil, scope end
  end
  local _ <close> = scope
  local lines <close>, why = self.engine:image_load { body = read }
  if not lines then return nil, why end
  local held = {}
  for line in lines do
    if line.error then return nil, runtime.error("pull", ("cannot load %s: %s"):format(reference.full, line.error)) end
    held[#held + 1] = line.stream and line.stream:match "^Loaded image:? ?[ID:]* (%S+)"
  end
  local image = self.engine:image_inspect(reference.full)
  if not image then
    return nil, runtime.error("pull", ("the archive does not hold %s, but %s"):format(reference.full, table.concat(held, ", ")))
  end
  if intent then
    local ok
    ok, err = brought(self, intent, reference, image)
    if not ok then return nil, err end
  end
  return result(self, reference, image)
end

--- The image of a task: loaded from its archive, or pulled as its config says.
---@param context TaskContext
---@param opts table  as for ensure
---@return { id: string, reference: Reference, pulled: boolean, stop_signal?: string }? image
---@return table? err  as of ensure and load
function Puller:obtain(context, opts)
  local config = context.task.config
  if not config.load then
    opts.force, opts.timeout = config.force_pull, config.image_pull_timeout
    opts.auth, opts.auth_soft_fail = config.auth, config.auth_soft_fail
    return self:ensure(config.image, opts)
  end
  local read, file = job_files.open(context.dirs, config.load, self.options)
  if not read then
    file.message = "config.load: " .. file.message
    return nil, file
  end
  local _ <close> = file
  return self:load(config.image, read, opts.owner)
end

--- Whether the image that a reference names now is the one that dockrun brought: another tool, or an engine that the state
--- has been used with as well, may have one of the same name.
---@param reference string
---@return boolean? is_ours
---@return table? err
function Puller:is_ours(reference)
  local row, err = self.state:image(reference)
  if err then return nil, err end
  local here
  here, err = self.engine:image_inspect(reference)
  if not here and err.status ~= 404 then return nil, err end
  return here ~= nil and row ~= nil and row.id == here.Id
end

--- Removes an image that dockrun brought, unless somebody uses it. (The engine refuses only where the last name of the image
--- would go.) If the reference is another image's by now, that stays, and is not dockrun's any more.
---@param reference string
---@return boolean removed
---@return table? err  why not, where it is neither in use nor gone already
function Puller:remove(reference)
  local used, err = self:is_used(reference)
  if err or used then return false, err end
  local ok, is_ours
  is_ours, err = self:is_ours(reference)
  if err then return false, err end
  if is_ours then
    ok, err = self.engine:image_remove(reference)
    if not ok and err.status == 409 then return false end
    if not ok and err.status ~= 404 then return false, err end
  end
  self.pulled[reference] = nil
  local _, why = self.state:forget_image(reference)
  return ok and true or false, why
end

return M
