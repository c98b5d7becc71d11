-- The rooms of core/ and the arrows between them: by the headers that files include, and by the symbols that their object
-- files need.
local process = require "spec.process"
local uv = require "luv"

local BUILD = process.program:match "^(.*)/[^/]*$"
local OBJECTS = BUILD .. "/CMakeFiles/dockrun_core.dir/core"

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

-- { file = { other = symbol, … } }
local function by_symbols()
  local objects, defined, used, graph = {}, {}, {}, {}
  for _, file in ipairs(files "c") do
    local object = ("%s/%s.o"):format(OBJECTS, file)
    if uv.fs_stat(object) then objects[#objects + 1] = object end
  end
  for line in lines_of("nm", "-gA", table.unpack(objects)) do
    local object, kind, name = line:match "^(.-)%.o:.- (%a) ([%w_]+)$"
    local file = object and object:sub(#OBJECTS + 2)
    if kind == "U" then used[#used + 1] = { file, name } elseif kind then defined[name] = file end
  end
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

describe("core/", function()
  it("has arrows between its rooms only downwards, by its headers", function() check_rooms(by_includes()) end)

  it("has arrows between its rooms only downwards, by its symbols", function()
    local graph = by_symbols()
    assert.truthy(next(graph), "no object files in " .. OBJECTS)
    check_rooms(graph)
  end)

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
end)
