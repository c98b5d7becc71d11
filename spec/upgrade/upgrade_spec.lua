-- An upgrade changes nothing: this dockrun takes over a state and containers that an older dockrun left. spec/upgrade/ holds
-- the state, and the requests that made the containers.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local process = require "spec.process"
local replay = require "spec.upgrade.replay"
local states = require "spec.states"
local store = require "dockrun.store"
local uv = require "luv"

for _, version in ipairs { "bb58faa" } do
  describe(("a state of dockrun %s"):format(version), function()
    local engine, endpoint, older

    setup(function() engine, endpoint = engines.ready() end)

    before_each(function()
      states.begin()
      older = replay.start(engine, endpoint, states.dir, version)
    end)
    after_each(function()
      if older then older:close() end
      states.finish()
    end)

    local function words(...) return { "--endpoint", endpoint, "--state-dir", states.dir, ... } end

    local function dockrun_with(...) return process.run(words(...)) end

    local function containers()
      local ids = {}
      for _, job in pairs(older.jobs) do
        for _, one in ipairs(assert(engine:container_list { all = true, filters = { label = { "dockrun.job=" .. job } } })) do
          assert.equal("running", one.State)
          ids[#ids + 1] = one.Id
        end
      end
      table.sort(ids)
      return ids
    end

    local function made()
      local ids = { table.unpack(older.containers) }
      table.sort(ids)
      return ids
    end

    local function stop_all()
      for _, job in pairs(older.jobs) do
        local result = dockrun_with("stop", job)
        assert.equal(0, result.code, result.stderr)
      end
      assert.same({}, containers())
      local state <close> = assert(store.open(states.dir, { readonly = true }))
      assert.same({}, assert(state:leases()))
      assert.is_nil(uv.fs_scandir_next(assert(uv.fs_scandir(states.dir .. "/alloc"))))
    end

    it("leaves `plan` nothing to do, and is re-attached to by `run -d`", function()
      for _ = 1, 2 do
        for _, file in pairs(older.files) do
          local result = dockrun_with("plan", file)
          assert.equal(0, result.code, result.stdout .. result.stderr)
        end
        for _, file in pairs(older.files) do
          local result = dockrun_with("run", "-d", "--json", file)
          assert.equal(0, result.code, result.stdout .. result.stderr)
          assert.matches('"event":"reattached"', result.stdout)
          assert.is_nil(result.stdout:find '"event":"created"')
        end
        assert.same(made(), containers())
      end
      stop_all()
    end)

    it("is shown by `status`, and continues with a `run` in the foreground", function()
      local told = assert(dockrun.json.decode(dockrun_with("status", "--json").stdout)).jobs
      assert.equal(2, #told)
      for _, job in ipairs(told) do
        for _, task in ipairs(job.tasks) do assert.equal("running", task.state) end
      end
      local child <close> = process.start(words("run", "--json", older.files.SERVICE))
      child:wait_for(('"event":"reattached".*'):rep(4))
      assert.same(made(), containers())
      child:kill "SIGINT"
      local result = child:wait()
      assert.equal(130, result.code, result.stderr)
      assert.is_nil(result.stdout:find '"event":"created"')
      stop_all()
    end)

    it("is taken over by an agent, whose jobs end by `stop`", function()
      local child <close> = process.start(words("agent", "--json"))
      child:wait_for(('"event":"reattached".*'):rep(5))
      assert.same(made(), containers())
      stop_all()
      assert.is_nil(child.stdout:find '"event":"created"')
    end)

    it("is cleaned up by `stop` alone", function() stop_all() end)
  end)
end
