-- The rooms of lua/dockrun and which may require which: cli -> agent -> task -> driver -> core, with job, hooks, sandbox,
-- store and util beside them. An arrow never runs back; a lower room that must tell an upper one something takes a callback.
local uv = require "luv"

local ROOT = (debug.getinfo(1, "S").source:match "^@(.*/)" or "./") .. "../"

-- A file directly in lua/dockrun is a room of its own. init.lua, the public API, may require all of them.
local allowed = {
  cli = "arguments output options agent driver job store util core",
  agent = "options task driver hooks job store util core",
  task = "driver hooks job sandbox util core",
  driver = "hooks job util core",
  hooks = "job sandbox util core",
  job = "sandbox util core",
  store = "util core",
  sandbox = "util core",
  util = "core",
  options = "driver job util core",
  arguments = "job", output = "util core", all = "core",
}

-- Modules that docs/ documents for scripts.
local documented = { ["dockrun"] = "docs/engine.md" }

local function read(path)
  local file <close> = assert(io.open(path))
  return (file:read "a")
end

local function each_file(directory, visit)
  local entries = uv.fs_scandir(directory)
  while entries do
    local name, kind = uv.fs_scandir_next(entries)
    if not name then return end
    local path = directory .. "/" .. name
    if kind == "directory" then each_file(path, visit) elseif name:find "%.lua$" then visit(path) end
  end
end

local function room_of(module) return module:match "^dockrun%.([%w_]+)" or "init" end

-- module -> { module, … }: what each file requires, "dockrun.job.schema" for job/schema/init.lua.
local function requires()
  local graph = {}
  each_file(ROOT .. "lua/dockrun", function(path)
    local module = path:sub(#ROOT + #"lua/" + 1):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
    local list = {}
    for name in read(path):gmatch 'require%s*%(?%s*"(dockrun[%w_.]*)"' do list[#list + 1] = name end
    graph[module] = list
  end)
  return graph
end

-- The nodes of a cycle as "a -> b -> a"; nil if there is none.
local function cycle(edges)
  local state, path = {}, {}
  local function walk(node)
    if state[node] == "done" then return nil end
    path[#path + 1] = node
    if state[node] then return table.concat(path, " -> ") end
    state[node] = "open"
    for next_node in pairs(edges[node] or {}) do
      local found = walk(next_node)
      if found then return found end
    end
    path[#path], state[node] = nil, "done"
  end
  for node in pairs(edges) do
    local found = walk(node)
    if found then return found end
  end
end

describe("the rooms of lua/", function()
  local graph, arrows = requires(), {}

  for module, list in pairs(graph) do
    for _, target in ipairs(list) do
      local from, to = room_of(module), room_of(target)
      if from ~= to and from ~= "init" and to ~= "init" then
        arrows[from] = arrows[from] or {}
        arrows[from][to] = ("%s requires %s"):format(module, target)
      end
    end
  end

  it("are all known here", function()
    for module in pairs(graph) do
      local room = room_of(module)
      assert.is_true(room == "init" or allowed[room] ~= nil, ("which rooms may %s require?"):format(module))
    end
  end)

  it("require only the rooms below them", function()
    for from, targets in pairs(arrows) do
      for to, why in pairs(targets) do
        local may = (" " .. allowed[from] .. " "):find(" " .. to .. " ", 1, true)
        assert.is_true(may ~= nil, ("%s, and %s must not know %s"):format(why, from, to))
      end
    end
  end)

  it("have no cycle", function()
    local edges = {}
    for from, targets in pairs(arrows) do
      edges[from] = {}
      for to in pairs(targets) do edges[from][to] = true end
    end
    assert.is_nil(cycle(edges))
  end)

  it("have no cycle of files", function()
    local edges = {}
    for module, list in pairs(graph) do
      edges[module] = {}
      for _, target in ipairs(list) do
        if module ~= "dockrun" and target ~= "dockrun" then edges[module][target] = true end
      end
    end
    assert.is_nil(cycle(edges))
  end)

  it("share in util/ only modules that three of them use", function()
    local users = {}
    for module, list in pairs(graph) do
      for _, target in ipairs(list) do
        if target:find "^dockrun%.util%." and room_of(module) ~= "util" then
          users[target] = users[target] or {}
          users[target][room_of(module)] = true
        end
      end
    end
    for module in pairs(graph) do
      if module:find "^dockrun%.util%." then
        local count = 0
        for _ in pairs(users[module] or {}) do count = count + 1 end
        assert.is_true(count >= 3, ("%s is used by %d rooms; put it where it is used"):format(module, count))
      end
    end
  end)

  it("are required by scripts only if docs/ documents them", function()
    each_file(ROOT .. "scripts", function(path)
      for name in read(path):gmatch 'require%s*%(?%s*"(dockrun[%w_.]*)"' do
        assert.is_string(documented[name], ("%s requires %s, which docs/ does not document"):format(path, name))
      end
    end)
    for name, page in pairs(documented) do
      assert.is_truthy(read(ROOT .. page):find(('require "%s"'):format(name), 1, true) or read(ROOT .. page):find(name, 1, true))
    end
  end)
end)
