-- dockrun logs, on tasks that a detached run left running.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local process = require "spec.process"
local proxies = require "spec.faults.proxy"

describe("dockrun logs", function()
  local endpoint, name

  -- Prints "early", a long line, "late", and one more line for each signal.
  local TALKS = [[
    trap 'echo again' USR1
    echo early; echo complaint >&2; head -c 40000 /dev/zero | tr '\0' x; echo; sleep 3; echo late
    while :; do sleep 0.1; done]]

  setup(function()
    local shared = engines.shared()
    endpoint = shared.endpoint
    engines.image(shared, "busybox:1")
    name = jobs.unique "logs"
    local path, file = jobs.write(([[
return job %q { group "g" {
  task "talks" {
    driver = "docker", kill_timeout = 0, config = { image = "busybox:1", command = "sh", args = { "-c", %q } },
    resources = { memory = 32 },
  },
  task "terminal" {
    driver = "docker", kill_timeout = 0,
    config = { image = "busybox:1", tty = true, command = "sh", args = { "-c", "echo tty; exec sleep 600" } },
    resources = { memory = 32 },
  },
} }]]):format(name, TALKS))
    local _ <close> = file
    local result = jobs.dockrun(endpoint, { "run", "-d", path })
    assert(result.code == 0, result.stderr)
    local child <close> = process.start { "--endpoint", endpoint, "--state-dir", jobs.state_dir, "logs", "-f", name .. "/talks" }
    child:wait_for "late"
  end)

  teardown(function() jobs.dockrun(endpoint, { "stop", name }) end)

  local function logs(...) return jobs.dockrun(endpoint, { "logs", ... }) end

  local function follow(...)
    return process.start { "--endpoint", endpoint, "--state-dir", jobs.state_dir, "logs", "-f", ... }
  end

  local long = ("x"):rep(40000)

  it("prints everything that a task wrote, each stream to its own descriptor", function()
    local result = logs(name .. "/talks")
    assert.same({ 0, "early\n" .. long .. "\nlate\n", "complaint\n" }, { result.code, result.stdout, result.stderr })
  end)

  it("names the task before each line if there are several", function()
    local lines = {}
    for line in logs(name, "--tail", "1").stdout:gmatch "[^\n]+" do lines[#lines + 1] = line end
    table.sort(lines)
    assert.same({ "talks[0] | late", "terminal[0] | tty\r" }, lines)
  end)

  it("prints each line whole as JSON, however long", function()
    local lines = {}
    for line in logs("--json", name .. "/talks").stdout:gmatch "[^\n]+" do
      local told = assert(dockrun.json.decode(line))
      assert.same({ name, "g", "talks" }, { told.job, told.group, told.task })
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d+Z$", told.time)
      if told.stream == "stdout" then lines[#lines + 1] = told.line end
    end
    assert.same({ "early", long, "late" }, lines)
  end)

  it("accepts times: a timestamp, a Unix time, or a duration ago", function()
    local first, last
    for line in logs("--json", name .. "/talks").stdout:gmatch "[^\n]+" do
      local told = assert(dockrun.json.decode(line))
      first, last = first or told.time, told.time
    end
    local unix = assert(require("dockrun.util.time").seconds(last)) .. last:match "%.%d+"
    for _, since in ipairs { last, unix, (last:gsub("Z$", "+00:00")) } do
      assert.equal("late\n", logs("--since", since, name .. "/talks").stdout)
    end
    assert.matches("^early\n.*late\n$", logs("--since", first, name .. "/talks").stdout)
    assert.matches("^early\n.*late\n$", logs("--since", "1h", name .. "/talks").stdout)
    assert.equal("", logs("--since", "2099-01-01T00:00:00Z", name .. "/talks").stdout)
  end)

  it("follows the output until it is interrupted", function()
    local child <close> = follow(name .. "/talks", "--tail", "0")
    eventually("it follows", function()  -- the start of following cannot be observed from here
      jobs.dockrun(endpoint, { "exec", name .. "/talks", "--", "kill", "-USR1", "1" })
      return child.stdout:find "again"
    end)
    assert.matches("^again\n", child.stdout)
    child:kill "SIGINT"
    assert.equal(130, child:wait().code)
  end)

  it("follows until the task ends", function()
    local text = jobs.text { name = jobs.unique "ends", image = "busybox:1",
      command = ("echo one; %s; echo two"):format(jobs.gate "go") }
    local run <close> = jobs.start(endpoint, text)
    local _ <close> = run.file
    local started = run:event "started"
    local child <close> = follow(started.job)
    child:wait_for "one\n"
    jobs.open(started.alloc, "go")
    assert.equal("one\ntwo\n", child:wait().stdout)
    run:wait()
  end)

  it("resumes at the same place after the connection breaks: each line once, in order", function()
    local text = jobs.text { name = jobs.unique "counts", image = "busybox:1",
      command = "i=0; while [ $i -lt 300 ]; do echo $i; [ $((i % 3)) != 0 ] || echo $i >&2; i=$((i+1)); usleep 10000; done; "
        .. jobs.gate "read" }
    local run <close> = jobs.start(endpoint, text)
    local _ <close> = run.file
    local started = run:event "started"
    local proxy <close> = proxies.start(endpoint)
    local child <close> = process.start { "--endpoint", proxy.endpoint, "--state-dir", jobs.state_dir, "logs", "-f", started.job }
    for at = 40, 240, 50 do
      child:wait_for(("\n%d\n"):format(at))
      proxy:drop()
    end
    child:wait_for "\n299\n"
    jobs.open(started.alloc, "read")
    local result = child:wait()
    assert.equal(0, result.code, result.stderr)
    local out, err = {}, {}
    for i = 0, 299 do
      out[#out + 1] = i
      if i % 3 == 0 then err[#err + 1] = i end
    end
    assert.equal(table.concat(out, "\n") .. "\n", result.stdout)
    assert.equal(table.concat(err, "\n") .. "\n", result.stderr)
    run:wait()
  end)

  for _, case in ipairs {
    { "a job that is not there", { "nonesuch" }, 1, "no task matches 'nonesuch'" },
    { "an invalid number of lines", { "--tail", "few", "x" }, 2, "--tail: expected" },
    { "an invalid time", { "--since", "yesterday", "x" }, 2, "--since: expected" },
    { "no job", {}, 2, "'target'" },
  } do
    local what, args, code, message = table.unpack(case)
    it("refuses " .. what, function()
      local result = logs(table.unpack(args))
      assert.equal(code, result.code)
      assert.matches(message, result.stderr, 1, true)
      assert.equal("", result.stdout)
    end)
  end
end)
