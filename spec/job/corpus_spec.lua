-- Every job file of the corpus, good and bad, against what it should mean: FILE.expected holds the job as JSON without
-- what every job says (see golden.lua), or the text of all its errors. After a change that is meant to alter them,
--
--   DOCKRUN_GOLDEN=write build/release/dockrun /usr/bin/busted spec/job/corpus_spec.lua
--
-- writes all of them anew; `git diff spec/job/corpus` then shows what changed.
local golden = require "spec.job.golden"
local json = require "dockrun.core.json"
local load = require "dockrun.job.load"
local uv = require "luv"

local DIR = "spec/job/corpus/"
local writing = os.getenv "DOCKRUN_GOLDEN" == "write"

local function read(name)
  local file <close> = assert(io.open(DIR .. name))
  return file:read "a"
end

local function read_job(name) return load.string(read(name), name:match "%.(%w+)$", name) end

local function is_hcl(name) return name:find "%.nomad$" or name:find "%.hcl$" end

local function assert_golden(name, text)
  if writing then
    local file <close> = assert(io.open(DIR .. name .. ".expected", "w"))
    assert(file:write(text))
  end
  assert.equal(read(name .. ".expected"), text)
end

-- Without what only Lua can say, and what is said of the reading rather than of the job.
local function plain(job)
  job.warnings, job.hooks = nil, {}
  for _, group in ipairs(job.groups) do
    group.hooks = {}
    for _, task in ipairs(group.tasks) do task.hooks = {} end
  end
  return job
end

describe("the corpus", function()
  local names, by_stem = {}, {}
  for name in function(scan) return (uv.fs_scandir_next(scan)) end, uv.fs_scandir(DIR) do
    if not name:find "%.expected$" then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local stem = name:match "^[^.]+"
    by_stem[stem] = by_stem[stem] or {}
    table.insert(by_stem[stem], name)
  end

  it("has at least 55 files, 25 of them HCL", function()
    local hcl = 0
    for _, name in ipairs(names) do hcl = hcl + (is_hcl(name) and 1 or 0) end
    assert.is_true(#names >= 55 and hcl >= 25)
  end)

  for _, name in ipairs(names) do
    if name:find "^bad" then
      it("refuses " .. name .. ", saying everything that is wrong", function()
        local job, err = read_job(name)
        assert.is_nil(job)
        assert.equal("spec", err.kind)
        assert_golden(name, golden.errors(err))
      end)

      it("says where " .. name .. " is wrong", function()
        local _, err = read_job(name)
        for _, problem in ipairs(err.list) do
          assert.truthy(problem.path or problem.line, problem.message)
          if is_hcl(name) and problem.path ~= "job" then assert.truthy(problem.line and problem.column, problem.message) end
        end
      end)
    else
      it("reads " .. name, function() assert_golden(name, golden.job(assert(read_job(name)))) end)

      it("reads " .. name .. " the same again, once printed", function()
        local job = plain(assert(read_job(name)))
        assert.same(job, plain(assert(load.string(json.encode(job), "json", name))))
      end)
    end
  end

  for stem, same in pairs(by_stem) do
    if #same > 1 and not stem:find "^bad" then
      it("reads one job from " .. table.concat(same, " and "), function()
        local first = plain(assert(read_job(same[1])))
        for i = 2, #same do assert.same(first, plain(assert(read_job(same[i])))) end
      end)
    end
  end
end)
