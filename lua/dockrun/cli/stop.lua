local dirs = require "dockrun.driver.dirs"
local dockrun = require "dockrun"
local events = require "dockrun.events"
local image = require "dockrun.driver.image"
local inventory = require "dockrun.driver.inventory"
local output = require "dockrun.cli.output"

local function stop_one(engine, emitter, record, purge)
  local task = { job = record.job, group = record.group, name = record.task, alloc_id = record.alloc }
  local id = record.container_id
  if record.state == "running" then
    emitter:emit(task, "killing", { container_id = id })
    local ok, err = engine:container_stop(id, { t = math.ceil(record.kill_timeout) })
    if not ok and err.status ~= 404 then error(err, 0) end
    emitter:emit(task, "killed", { container_id = id })
  end
  if not (purge or dockrun.options["docker.cleanup.container"]) then return end
  local ok, err = engine:container_remove(id, { v = true, force = true })
  if not ok and err.status ~= 404 and err.status ~= 409 then error(err, 0) end
  record.removed = true
  emitter:emit(task, "removed", { container_id = id })
end

-- An allocation's directories go with the last of its containers.
local function remove_dirs(records)
  local kept = {}
  for _, record in ipairs(records) do kept[record.alloc] = kept[record.alloc] or not record.removed end
  for _, record in ipairs(records) do
    if record.alloc_dir and not kept[record.alloc] then
      local ok, err = dirs.remove(record.alloc_dir)
      if not ok then output.say("warn", tostring(err)) end
    end
  end
end

local function remove_images(engine, emitter, records)
  local images = image.new(engine, dockrun.options)
  for _, record in ipairs(records) do
    if record.pulled and dockrun.options["docker.cleanup.image"] and images:remove(record.image) then
      local task = { job = record.job, group = record.group, name = record.task, alloc_id = record.alloc }
      emitter:emit(task, "image_removed", { message = record.image })
    end
  end
end

return {
  summary = "Stop a job and clean up after it.",
  define = function(command)
    command:argument("job", "The job's name.")
    command:flag("--purge", "Remove its containers even where docker.cleanup.container is false.")
  end,
  run = function(args)
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    local records
    records, err = inventory.list(engine, args.job)
    if not records then return nil, err end
    if #records == 0 then return nil, dockrun.error("failed", ("no job '%s' on this engine"):format(args.job)) end
    local emitter = events.new()
    emitter:listen(args.json and output.json or function(event)
      output.say("info", ("%s.%s.%s: %s"):format(event.job, event.group, event.task, event.event))
    end)
    local stops = {}
    for i, record in ipairs(records) do
      stops[i] = function() stop_one(engine, emitter, record, args.purge) end
    end
    dockrun.all(stops)
    remove_dirs(records)
    remove_images(engine, emitter, records)
    return 0
  end,
}
