-- Records the state and the containers that a version of dockrun leaves when it runs the jobs of this directory. For
-- spec/upgrade/upgrade_spec.lua, which replays them for later versions. Run it with the version to record:
--
--   build/release/dockrun spec/upgrade/record.lua ENDPOINT NAME      writes spec/upgrade/NAME.sql and NAME.json
--
-- Values that differ between hosts or runs are written as @NAME@.
local containers = require "dockrun.driver.docker"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local states = require "spec.states"
local replay = require "spec.upgrade.replay"

local endpoint, name = arg[1], arg[2]
local made = dockrun.json.array {}

local create = containers.create
function containers.create(engine, container, body, ...)
  local one = { name = container, body = body }
  made[#made + 1] = one
  local id, err, warnings = create(engine, container, body, ...)
  one.id = id
  return id, err, warnings
end

local function run(command)
  local code = require "dockrun.cli" { [0] = "dockrun", "--endpoint", endpoint, "--state-dir", states.dir, table.unpack(command) }
  assert(code == 0, "it failed")
end

-- Values that are of this host or this run -> their placeholders.
local function placeholders(engine)
  local values = { [states.dir] = "STATE", [endpoint] = "ENDPOINT", ["older-service"] = "SERVICE", ["older-batch"] = "BATCH" }
  values[assert(engine:image_inspect "busybox:1").Id] = "IMAGE"
  values[states.sql "SELECT id FROM identity"] = "STATE_ID"
  for i, one in ipairs(made) do
    local labels, number = one.body.Labels, 0
    values[one.id], values[labels["dockrun.alloc"]] = "CONTAINER" .. i, "ALLOC" .. i
    for _, port in ipairs(dockrun.json.decode(labels["dockrun.ports"])) do
      values[port.ip], number = "IP", number + 1
      values[tostring(port.host_port)] = ("PORT%d_%d"):format(i, number)
    end
  end
  return values
end

engines.image({ endpoint = endpoint }, "busybox:1")
states.begin()
for _, file in ipairs(replay.jobs) do
  local path = replay.write(file, states.dir, { SERVICE = "older-service", BATCH = "older-batch" })
  run { "run", "-d", path }
end
local engine = assert(dockrun.connect { endpoint = endpoint })
local pipe <close> = assert(io.popen(("sqlite3 '%s' .dump"):format(states.path)))
local version = states.sql "PRAGMA user_version"
local dump = ("%s\nPRAGMA user_version = %d;\n"):format(pipe:read "a", version)
local values = placeholders(engine)
local lines = dockrun.json.array {}
for i, one in ipairs(made) do lines[i] = dockrun.json.encode { name = one.name, body = one.body, id = one.id } end
for ending, text in pairs { sql = dump, json = "[\n" .. table.concat(lines, ",\n") .. "\n]\n" } do
  local file <close> = assert(io.open(("spec/upgrade/%s.%s"):format(name, ending), "w"))
  file:write(replay.generalise(text, values))
end
for _, one in ipairs(made) do engine:container_remove(one.id, { force = true, v = true }) end
states.finish()
