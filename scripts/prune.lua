#!/usr/bin/env dockrun
-- Removes stopped containers that ended, and images that were made, longer ago than an age and that nothing uses.
-- With --dry-run it only says what it would do.
--
--   dockrun scripts/prune.lua [--dry-run] [--containers] [--images] [--label LABEL] AGE      (AGE: 24h, 90m, 10s)
local argparse = require "argparse"
local dockrun = require "dockrun"
local duration = require "dockrun.job.duration"

local parser = argparse("prune.lua", "Removes old stopped containers and unused images.")
parser:argument("age", "How old: 24h, 90m, 10s."):convert(duration.parse)
parser:flag("-n --dry-run", "Say what would be removed, and remove nothing.")
parser:flag("--containers", "Only containers.")
parser:flag("--images", "Only images.")
parser:option("--label", "Only what carries this label (LABEL or LABEL=VALUE).")
local args = parser:parse()

local engine = assert(dockrun.connect())
local now = os.time()
local filters = { label = args.label and { args.label } or nil }

-- RFC 3339 in UTC, as the engine writes it, to seconds since 1970.
local function seconds(timestamp)
  local year, month, day, hour, minute, second = timestamp:match "^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)"
  local utc = os.time { year = year, month = month, day = day, hour = hour, min = minute, sec = second, isdst = false }
  return utc + os.difftime(now, os.time(os.date("!*t", now)))
end

local function remove(what, name, call, ...)
  if args.dry_run then
    print(("would remove %s %s"):format(what, name))
    return
  end
  local ok, err = call(engine, ...)
  if ok then
    print(("removed %s %s"):format(what, name))
  elseif err.status ~= 404 and err.status ~= 409 then  -- gone, or in use after all
    error(err, 0)
  end
end

local function prune_containers()
  filters.status = { "exited", "dead", "created" }
  for _, container in ipairs(assert(engine:container_list { all = true, filters = filters })) do
    local inspected = engine:container_inspect(container.Id)
    local state = inspected and inspected.State
    if state and not state.Running then
      local ended = state.Status == "created" and inspected.Created or state.FinishedAt
      if now - seconds(ended) >= args.age then
        remove("container", container.Names[1]:gsub("^/", ""), engine.container_remove, container.Id, { v = true })
      end
    end
  end
end

local function prune_images()
  local used = {}
  for _, container in ipairs(assert(engine:container_list { all = true })) do used[container.ImageID] = true end
  for _, image in ipairs(assert(engine:image_list { filters = { label = filters.label } })) do
    if not used[image.Id] and now - image.Created >= args.age then
      local names = image.RepoTags or {}
      if #names == 0 or names[1] == "<none>:<none>" then names = { image.Id } end
      for _, name in ipairs(names) do remove("image", name, engine.image_remove, name) end
    end
  end
end

if not args.images then prune_containers() end
if not args.containers then prune_images() end
