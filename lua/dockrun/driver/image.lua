--- Images: when one is pulled or loaded, and when it is removed. Only images that dockrun pulled or loaded are ever removed,
--- so each is recorded in the state.
local validators = require "dockrun.job.validators"
local credentials = require "dockrun.driver.credentials"
local job_files = require "dockrun.driver.job_files"
local references = require "dockrun.job.reference"
local pull = require "dockrun.driver.pull"
local runtime = require "dockrun.core.runtime"

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
--- if it holds names that are filled in later.
---@param text string
---@return string?
function M.planned(text)
  local found = not validators.is_open(text) and references.parse(text)
  return found and found.full or nil
end

---@class ImagePuller
---@field engine table
---@field options table<string, any>
---@field state Store                   has the images that dockrun pulled
---@field pulls Pulls
---@field pulled table<string, boolean> references that this process used and that dockrun pulled or loaded
---@field unsure table<integer, boolean> intents of this process: true if the outcome of the pull is not known
local Puller = {}
Puller.__index = Puller

---@param engine table
---@param options table<string, any>
---@param state Store
---@return ImagePuller
function M.new(engine, options, state)
  return setmetatable({
    engine = engine, options = options, state = state, pulls = pull.new(engine, options), pulled = {}, unsure = {},
  }, Puller)
end

-- Records an intent before a pull; record_image replaces it by the image. If the process is killed in between, or does not
-- learn how the pull ended, the intent stays, and `settle` finds out whether the image is there.
---@return integer? intent
---@return table err_or_scope  to be closed
local function record_intent(self, reference, owner)
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

-- `before` is dockrun's image that had the reference until now: it has no name any more, but still uses space.
local function record_image(self, intent, reference, image, before)
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

-- Finds out whether the image of an intent is there.
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

--- Finds out what became of the pulls whose outcome is not known: those of processes that have ended, and those of this
--- process that were interrupted.
---@param is_alive fun(owner: Owner): boolean
---@return true? ok
---@return table? err
function Puller:settle(is_alive)
  local intents, err = self.state:intents()
  if not intents then return nil, err end
  for _, intent in ipairs(intents) do
    local endpoint = intent.data and intent.data.endpoint  -- nil: written by an older dockrun
    local here = intent.action == "pull" and (not endpoint or endpoint == self.engine:endpoint())
    if here and (self.unsure[intent.id] or not is_alive(intent.owner)) then
      local ok
      ok, err = settle(self, intent)
      if not ok then return nil, err end
    end
  end
  return true
end

-- Does so if a pull of this process was interrupted.
local function settle_own(self)
  for _, unsure in pairs(self.unsure) do
    if unsure then return self:settle(function() return true end) end
  end
  return true
end

--- Whether a reference is in use: by any container, by a running job, or by a task that may still get a container.
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

--- Makes sure that an image is on the host. `latest` is pulled each time, any other tag only if it is missing. If a pull of
--- `latest` fails and the host has one, that one is used, and `warn` gets the reason.
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
  local row = self.state:image(reference.full)  -- first: a removal deletes the record last
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
  if err and opts.warn then opts.warn(("%s; pulling without credentials"):format(err)) end
  local intent, scope
  if not here or self.pulled[reference.full] then
    intent, scope = record_intent(self, reference, opts.owner)
    if not intent then return nil, scope end
  end
  local _ <close> = scope
  local ok
  ok, err = self.pulls:join(reference, auth, opts.progress, opts.timeout)
  if not ok then
    if not here or opts.force or err.kind ~= "pull" then return nil, err end
    if opts.warn then opts.warn(("%s; using the local image"):format(err)) end
    return result(self, reference, here)
  end
  local image
  image, err = self.engine:image_inspect(reference.full)
  if not image then return nil, pull.error(reference, tostring(err)) end
  if intent then
    ok, err = record_image(self, intent, reference, image, here)
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
    intent, scope = record_intent(self, reference, owner)
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
    return nil, runtime.error("pull", ("config.load: expected %s in the archive, got %s"):format(reference.full, table.concat(held, ", ")))
  end
  if intent then
    local ok
    ok, err = record_image(self, intent, reference, image)
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
  local config = context.resolved.config
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

--- Whether the image that a reference names now is the one that dockrun pulled: another tool may have replaced it, and
--- another engine that was used with this state may have its own.
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

--- Removes an image that dockrun pulled, unless it is in use. (The engine refuses only to remove an image's last name.) If
--- the reference names another image now, that one stays.
---@param reference string
---@return boolean removed
---@return table? err  the reason, if it is neither in use nor gone already
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
