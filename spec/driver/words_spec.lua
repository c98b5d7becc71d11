-- The engine's field names (HostConfig, State, …) are known to driver/ and to core/docker alone: a change of the engine's API
-- is a change in one room.
local uv = require "luv"

local ROOT = (debug.getinfo(1, "S").source:match "^@(.*/)" or "./") .. "../../lua/dockrun/"

-- Files that may name them, and why.
local may = {
  ["hooks/validate.lua"] = "checks the create body, which a hook gets as the engine has it",
  ["job/readers/nomad_json.lua"] = "reads Nomad's API, whose field names are written in the same way",
}

-- Code without comments and texts: the schema's rows have the fields as text, for `dockrun help config` and for driver/.
local function code_of(path)
  local file <close> = assert(io.open(path))
  return (file:read "a"):gsub("%-%-[^\n]*", ""):gsub('"[^"\n]*"', '""'):gsub("'[^'\n]*'", "''")
end

local function each_file(directory, visit)
  local entries = uv.fs_scandir(ROOT .. directory)
  while entries do
    local name, kind = uv.fs_scandir_next(entries)
    if not name then return end
    local path = directory .. name
    if kind == "directory" then each_file(path .. "/", visit) elseif name:find "%.lua$" then visit(path) end
  end
end

-- The words that a file uses as names of fields: capitalised, and no class of its own.
local function words_of(path)
  local code, found = code_of(ROOT .. path), {}
  for _, pattern in ipairs { "%.(%u%w*)", "%f[%w_](%u%w*)%s*=[^=]" } do
    for word in code:gmatch(pattern) do found[word] = true end
  end
  for class in code:gmatch "local%s+(%u[%w_]*)" do found[class] = nil end
  return found
end

describe("the engine's field names", function()
  local words = {}
  each_file("driver/", function(path)
    for word in pairs(words_of(path)) do words[word] = true end
  end)
  for word in pairs(words) do
    if word:find "^%u+$" then words[word] = nil end  -- constants
  end

  it("are the words of driver/", function()
    for _, word in ipairs { "HostConfig", "PidsLimit", "ExitCode", "NetworkSettings", "Binds" } do assert.is_true(words[word], word) end
  end)

  it("are no other room's", function()
    each_file("", function(path)
      if path:find "^driver/" or may[path] then return end
      for word in pairs(words_of(path)) do
        assert.is_nil(words[word], ("%s names the engine's field %s; let a function of driver/ do that"):format(path, word))
      end
    end)
  end)
end)
