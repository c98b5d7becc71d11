-- A warning of the engine about an ignored option is shown to the user once.
local dockrun = require "dockrun"
local engines = require "spec.faults.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local pl_dir = require "pl.dir"
local process = require "spec.process"
local uv = require "luv"
local tables = require "dockrun.util.tables"

local TEXT = "Your kernel does not support swap limit capabilities. Limitation discarded."
local EXPECTED = { "dockrun: warn: task 'warned.group.task': the engine warns: " .. TEXT }

describe("a warning of the engine", function()
  local state_dir

  before_each(function() state_dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-warnings-XXXXXX")) end)
  after_each(function() pl_dir.rmtree(state_dir) end)

  -- An engine that sends a warning for each container; each container fails.
  local function start()
    local failed = tables.copy_data(engines.documents.container_inspect)
    failed.State.ExitCode = 1
    return engines.start {
      container_create = engines.answer(dockrun.json.encode { Id = ("c"):rep(64), Warnings = { TEXT } }, "201 Created"),
      container_inspect = engines.answer(dockrun.json.encode(failed)),
    }
  end

  local function words(e, ...)
    return { "--endpoint", e.endpoint, "--state-dir", state_dir, "--set", "docker.watch_interval=0.1", ... }
  end

  -- Runs a job that is restarted twice, and returns the lines of stderr that hold the warning.
  local function warnings_of(e, ...)
    local restart = "attempts = 2, delay = 0.01, interval = '1h', mode = 'fail'"
    local path, file = jobs.write(jobs.text { name = "warned", image = "busybox:1", command = "false", restart = restart })
    local _ <close> = file
    local lines = {}
    for line in process.run(words(e, "run", path, ...)).stderr:gmatch "[^\n]+" do
      if line:find(TEXT, 1, true) then lines[#lines + 1] = line end
    end
    return lines
  end

  for what, arguments in pairs { ["in the foreground"] = {}, ["with --json"] = { "--json" } } do
    it("is printed once by `run` " .. what .. ", however many containers the task has", function()
      local e <close> = start()
      assert.same(EXPECTED, warnings_of(e, table.unpack(arguments)))
      assert.equal(3, e.asked.container_create)
    end)
  end

  it("is printed by `run -d`", function()
    local e <close> = start()
    assert.same(EXPECTED, warnings_of(e, "-d"))
  end)

  it("is printed by `run -d` if the agent runs the job", function()
    local e <close> = start()
    local agent <close> = process.start(words(e, "agent"))
    agent:wait_for "watching"
    eventually("its socket", function()
      local found, sockets = false, uv.fs_scandir(state_dir .. "/jobs")
      while sockets and uv.fs_scandir_next(sockets) do found = true end
      return found
    end)
    assert.same(EXPECTED, warnings_of(e, "-d"))
    agent:wait_for "the engine warns"
  end)
end)
