#!/usr/bin/env dockrun
-- Removes old stopped containers, and old images that no container uses. --dry-run only shows them.
--
--   dockrun scripts/prune.lua [--dry-run] [--containers] [--images] [--label LABEL] AGE      (AGE: 24h, 90m, 10s)
--
-- Exit: 0 done, 1 the engine failed, 2 bad usage.
local dockrun = require "dockrun"

local parser = dockrun.arguments.parser("prune.lua", "Removes old stopped containers and unused images.")
parser:argument("age", "How old: 24h, 90m, 10s."):convert(dockrun.duration.parse)
parser:flag("-n --dry-run", "Show what would be removed, and remove nothing.")
parser:flag("--containers", "Only containers.")
parser:flag("--images", "Only images.")
parser:option("--label", "Only containers and images with this label (LABEL or LABEL=VALUE).")
local args = parser:parse()

local engine = assert(dockrun.connect())
local now = os.time()
local label = args.label and { args.label } or nil
local gone = {}  -- ids of containers that were or would be removed: they no longer use an image

-- Removes with call(engine, ...); true if that was or would be done.
local function remove(what, name, call, ...)
  if args.dry_run then
    print(dockrun.safe(("would remove %s %s"):format(what, name)))
    return true
  end
  local ok, err = call(engine, ...)
  if ok then
    print(dockrun.safe(("removed %s %s"):format(what, name)))
  elseif err.status == 409 then  -- used meanwhile
    io.stderr:write(dockrun.safe(("kept %s %s: %s"):format(what, name, err.message)), "\n")
  elseif err.status ~= 404 then
    error(err, 0)
  end
  return ok
end

local function prune_containers()
  local filters = { label = label, status = { "exited", "dead", "created" } }
  for _, container in ipairs(assert(engine:container_list { all = true, filters = filters })) do
    local inspected = engine:container_inspect(container.Id)
    local state = inspected and inspected.State
    if state and not state.Running then
      local ended = state.Status == "created" and inspected.Created or state.FinishedAt
      if now - dockrun.time.seconds(ended) >= args.age then
        local name = container.Names[1]:gsub("^/", "")
        gone[container.Id] = remove("container", name, engine.container_remove, container.Id, { v = true })
      end
    end
  end
end

local function prune_images()
  local used = {}
  for _, container in ipairs(assert(engine:container_list { all = true })) do
    if not gone[container.Id] then used[container.ImageID] = true end
  end
  for _, image in ipairs(assert(engine:image_list { filters = { label = label } })) do
    if not used[image.Id] and now - image.Created >= args.age then
      local names = image.RepoTags or {}
      if #names == 0 or names[1] == "<none>:<none>" then names = { image.Id } end
      for _, name in ipairs(names) do remove("image", name, engine.image_remove, name) end
    end
  end
end

local both = not args.containers == not args.images
if both or args.containers then prune_containers() end
if both or args.images then prune_images() end
