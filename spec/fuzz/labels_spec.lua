-- Containers with damaged labels that the state did not record, beside one that it did: dockrun reads the labels and ignores
-- their claims.
local adopt = require "dockrun.agent.adopt"
local json = require "dockrun.core.json"
local container_config = require "dockrun.driver.container_config"
local load = require "dockrun.job.load"
local options = require "dockrun.options"
local random = require "spec.fuzz.random"
local observed = require "dockrun.agent.observed"
local states = require "spec.states"

local SEEDS, ALLOC = 300, "0a1b2c3d-0000-4000-8000-00000000cafe"

describe("whatever the labels of a container hold", function()
  before_each(states.begin)
  after_each(states.finish)

  local job = assert(load.string([[
    return job "fuzzed" { group "g" { task "t" { config = { image = "busybox:1", command = "true", cap_drop = { "mknod" } },
      checks = { { type = "tcp", port = "web" } }, resources = { network = { dynamic_ports = { "web" } } } } } }
  ]], "lua", "spec"))

  local function true_labels(state)
    local spec = job.groups[1].tasks[1]
    local labels = assert(container_config.body({
      job = job, group = job.groups[1], resolved = spec, spec = spec, alloc = { id = ALLOC, index = 0 }, ip = "127.0.0.1", bind_ip = "",
      ports = json.array { { label = "web", ip = "127.0.0.1", host_port = 20001, container_port = 20001,
        protocols = json.array { "tcp", "udp" } } },
      env = {}, state_id = state.id, intent = "1n7e47",
    }, options.new())).Labels
    labels["dockrun.alloc_dir"] = states.dir .. "/alloc/" .. ALLOC
    return labels
  end

  -- Replaces a value, or a part of it at some depth, by something else.
  local function damaged(r, value)
    if type(value) ~= "table" or r:one_in(4) then
      return r:pick { 0, -1, 1e308, 0.5, true, false, "", "x", "../../etc", ("x"):rep(300), "\27[2J", {}, { 1, "a", {} }, { a = 1 },
        json.null }
    end
    local keys = {}
    for key in pairs(value) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    if #keys == 0 or r:one_in(5) then
      value[r:text(2)] = r:text()
      return value
    end
    local key = r:pick(keys)
    if r:one_in(4) then value[key] = nil else value[key] = damaged(r, value[key]) end
    return value
  end

  local function damage(r, labels)
    local keys, changed = {}, {}
    for key, value in pairs(labels) do
      keys[#keys + 1], changed[key] = key, value
    end
    table.sort(keys)
    for _ = 1, r:int(0, 3) do
      local key = r:pick(keys)
      local text = changed[key]
      local tree = text and text:find "^[%[{]" and json.decode(text)
      if r:one_in(4) then
        changed[key] = nil
      elseif tree and not r:one_in(4) then
        changed[key] = json.encode(damaged(r, tree))
      else
        changed[key] = r:pick { "", "5", "-1", "[]", "{}", "null", "1e999", "../../x", ("x"):rep(300), r:text(), tostring(text) .. "0" }
      end
    end
    return changed
  end

  it(("it is read and ignored (%d seeds)"):format(SEEDS), function()
    local state = assert(states.open())
    assert(state:put_job { name = "fuzzed", definition = { name = "fuzzed", type = "service" }, status = "running" })
    assert(state:put_alloc { id = ALLOC, job = "fuzzed", group = "g", index = 0 })
    local labels = true_labels(state)
    local set = options.new()
    set.state_dir = states.dir
    local adoptable = 0
    for seed = 1, SEEDS do
      local r = random.new(seed)
      local id = ("%064x"):format(seed)
      assert(state:put_task { alloc = ALLOC, task = "t", state = "running", container_id = r:one_in(2) and "mine" or nil,
        detail = { intent = r:pick { "another", nil } } })
      local forged = damage(r, labels)
      local name = r:pick { "t-" .. ALLOC, "t-" .. (forged["dockrun.alloc"] or ""), "x" }
      local engine = {
        endpoint = function() return "unix:///engine.sock" end,
        container_list = function() return { { Id = id, Names = { "/" .. name }, Labels = forged } } end,
        container_inspect = function()
          return { Id = id, Image = "sha256:x", Created = "2026-01-01T00:00:00Z", HostConfig = {}, Config = { Image = "busybox:1" },
            State = { Status = "running", ExitCode = 0, StartedAt = "2026-01-01T00:00:00Z" } }
        end,
      }
      local agent = { engine = engine, state = state, options = set, host = function()
        return { attr = {}, node = {}, ip = "127.0.0.1", options = set }
      end }
      local found = assert(observed.find(agent))
      for _, observation in ipairs(found.observations) do assert.is_true(observation.container_id == nil, ("seed %d"):format(seed)) end
      assert.equal(1, #found.unowned + #found.strangers)
      local done, list = pcall(adopt.find, agent)
      assert(done, ("seed %d: %s"):format(seed, list))
      for _, one in ipairs(list) do
        if not one.refused then adoptable = adoptable + 1 end
      end
    end
    assert.is_true(adoptable > SEEDS / 100, adoptable .. " could be adopted")  -- otherwise the damage is too large to test anything
  end)
end)
