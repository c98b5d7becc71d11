-- The rooms of core/ and the arrows between them: by the headers that files include, and by the symbols that their object
-- files need. And the names of its functions.
local process = require "spec.process"
local uv = require "luv"

local BUILD = process.program:match "^(.*)/[^/]*$"
local OBJECTS = BUILD .. "/CMakeFiles/dockrun_core.dir/core"
local PROGRAM = BUILD .. "/CMakeFiles/dockrun.dir/core/main.c.o"

-- Which rooms a room may use. The files at the top of core/ join all rooms.
local allowed = {
  data = {},
  runtime = { data = true },
  host = { data = true },
  http = { data = true, runtime = true },
  docker = { data = true, runtime = true, http = true },
}

-- The scheduler is one thing in four files; nothing else is larger.
local LARGEST_CIRCLE = 4

local function room_of(file) return file:match "^(%w+)/" or "top" end

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

local function lines_of(program, ...)
  local result = process.run({ ... }, { program = program })
  assert(result.code == 0, result.stderr)
  return result.stdout:gmatch "[^\n]+"
end

-- "runtime/wait.c" of every source of core/ and, with `ending` "[ch]", every header.
local function files(ending)
  local list = {}
  for path in lines_of("find", "core", "-name", "*." .. ending) do list[#list + 1] = path:match "^core/(.*)$" end
  return list
end

-- What the object files define for each other, { name = file }, and need: a list of { file, name }.
local function symbols()
  local objects, defined, used = { PROGRAM }, {}, {}
  for _, file in ipairs(files "c") do
    local object = ("%s/%s.o"):format(OBJECTS, file)
    if uv.fs_stat(object) then objects[#objects + 1] = object end
  end
  assert.truthy(#objects > 40, "no object files in " .. OBJECTS)
  for line in lines_of("nm", "-gA", table.unpack(objects)) do
    local object, kind, name = line:match "^(.-)%.o:.- (%a) ([%w_]+)$"
    local file = object and object:match ".*/core/(.*)$"
    if kind == "U" then used[#used + 1] = { file, name } elseif kind then defined[name] = file end
  end
  return defined, used
end

-- { file = { other = symbol, … } }
local function by_symbols()
  local graph, defined, used = {}, symbols()
  for _, use in ipairs(used) do
    local file, name = table.unpack(use)
    local other = defined[name]
    graph[file] = graph[file] or {}
    if other and other ~= file then graph[file][other] = name end
  end
  return graph
end

local function by_includes()
  local graph = {}
  for _, file in ipairs(files "[ch]") do
    graph[file] = {}
    for line in io.lines("core/" .. file) do
      local other = line:match '^#include "(.*)"'
      if other then graph[file][other] = "an include" end
    end
  end
  return graph
end

local function check_rooms(graph)
  for file, others in pairs(graph) do
    local room = room_of(file)
    for other, why in pairs(others) do
      local to = room_of(other)
      local fine = room == "top" or to == room or (allowed[room] or {})[to]
      assert.truthy(fine, ("%s must not use %s (%s)"):format(file, other, why))
    end
  end
end

-- Every file that can be reached from `file`.
local function reach(graph, file, found)
  for other in pairs(graph[file] or {}) do
    if not found[other] then
      found[other] = true
      reach(graph, other, found)
    end
  end
  return found
end

-- Calls found(name, file) for each static function, but those of Lua's bindings: l_close has the name of its method.
local function each_static(found)
  for _, file in ipairs(files "[ch]") do
    local text = read("core/" .. file)
    for name in text:gmatch "\nstatic [%w_ *]-([%w_]+)%([^;{}]-%) {" do
      if not name:find "^l_" then found(name, file) end
    end
  end
end

describe("core/", function()
  it("has arrows between its rooms only downwards, by its headers", function() check_rooms(by_includes()) end)

  it("has arrows between its rooms only downwards, by its symbols", function() check_rooms(by_symbols()) end)

  it("has no circle of more files than the scheduler has", function()
    local graph, reached = by_symbols(), {}
    for file in pairs(graph) do reached[file] = reach(graph, file, {}) end
    for file, found in pairs(reached) do
      local circle = { file }
      for other in pairs(found) do
        if other ~= file and (reached[other] or {})[file] then circle[#circle + 1] = other end
      end
      assert.truthy(#circle <= LARGEST_CIRCLE, table.concat(circle, " "))
    end
  end)

  it("has each name of a static function in one file", function()
    local first, count = {}, 0
    each_static(function(name, file)
      count = count + 1
      local other = first[name] or file
      assert.truthy(other == file, ("%s is in %s and in %s: put the file's word before it"):format(name, other, file))
      first[name] = file
    end)
    assert.truthy(count > 300, "found only " .. count .. " functions")
  end)

  it("exports no function that only its own file uses", function()
    local defined, used = symbols()
    for _, use in ipairs(used) do defined[use[2]] = nil end
    for name, file in pairs(defined) do
      assert.truthy(name == "main" or name:find "^dockrun_", ("%s of %s must be static, or used"):format(name, file))
    end
  end)
end)
