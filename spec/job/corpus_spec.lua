-- Every job file of the corpus, good and bad, against what it should mean: FILE.expected holds the normalised job as
-- JSON, or the text of all its errors.
local json = require "dockrun.core.json"
local load = require "dockrun.job.load"
local uv = require "luv"

local DIR = "spec/job/corpus/"

local function read(name)
  local file <close> = assert(io.open(DIR .. name))
  return file:read "a"
end

-- Functions as `dockrun validate --json` prints them.
local function printable(value)
  if type(value) == "function" then return "function" end
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = printable(item) end
  return copy
end

local function without_warnings(job)
  job.warnings = nil
  return job
end

describe("the corpus", function()
  local names = {}
  for name in function(scan) return (uv.fs_scandir_next(scan)) end, uv.fs_scandir(DIR) do
    if not name:find "%.expected$" then names[#names + 1] = name end
  end
  table.sort(names)

  it("has at least twenty files", function() assert.is_true(#names >= 20) end)

  for _, name in ipairs(names) do
    local format = name:match "%.(%w+)$"
    if name:find "^bad" then
      it("refuses " .. name .. ", saying everything that is wrong", function()
        local job, err = load.string(read(name), format, name)
        assert.is_nil(job)
        assert.equal("spec", err.kind)
        assert.equal(read(name .. ".expected"), tostring(err) .. "\n")
      end)
    else
      it("reads " .. name, function()
        local job = assert(load.string(read(name), format, name))
        assert.same(assert(json.decode(read(name .. ".expected"))), printable(job))
      end)

      it("reads " .. name .. " the same again, once printed", function()
        local job = assert(load.string(read(name), format, name))
        for _, level in ipairs { { job }, job.groups, table.unpack(job.groups, 1) } do
          for _, one in ipairs(level.tasks or level) do one.hooks = {} end  -- which only Lua can say
        end
        local again = assert(load.string(json.encode(job), "json", name))
        assert.same(without_warnings(job), without_warnings(again))
      end)
    end
  end
end)
