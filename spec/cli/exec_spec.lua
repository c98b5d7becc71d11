-- dockrun exec and dockrun stats, on a task that a detached run left running.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"

describe("a running task", function()
  local endpoint, name

  setup(function()
    local shared = engines.shared()
    endpoint = shared.endpoint
    engines.image(shared, "busybox:1")
    name = jobs.unique "running"
    local path, file = jobs.write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600" })
    local _ <close> = file
    local result = jobs.dockrun(endpoint, { "run", "-d", path })
    assert(result.code == 0, result.stderr)
  end)

  teardown(function() jobs.dockrun(endpoint, { "stop", name }) end)

  local function exec(args, opts)
    return jobs.dockrun(endpoint, { "exec", table.unpack(args) }, opts)
  end

  it("runs a command for `exec`, with its output and exit code", function()
    local result = exec { name .. "/task", "--", "sh", "-c", "echo out; echo err >&2; exit 7" }
    assert.same({ 7, "out\n", "err\n" }, { result.code, result.stdout, result.stderr })
  end)

  for command, code in pairs { ["/no/such"] = 127, ["/bin"] = 126 } do
    it(("says why %s cannot be started, with exit code %d"):format(command, code), function()
      for _, json in ipairs { false, true } do
        local result = exec { json and "--json" or "-v", name, "--", command }
        assert.same({ code, "" }, { result.code, result.stdout })
        assert.matches("dockrun: error: .*" .. command, result.stderr)
      end
    end)
  end

  it("passes on a command's output, whatever it contains", function()
    local result = exec { name, "--", "echo", "OCI runtime exec failed: not at all" }
    assert.same({ 0, "OCI runtime exec failed: not at all\n", "" }, { result.code, result.stdout, result.stderr })
  end)

  it("passes the caller's input to the command with -i", function()
    local shell = ("printf 'one\\ntwo' | '%s' --endpoint %s --state-dir %s exec -i %s -- wc -c"):format(
      process.program, endpoint, jobs.state_dir, name)
    local result = process.run({ "-c", shell }, { program = "sh" })
    assert.same({ 0, "7\n" }, { result.code, result.stdout }, result.stderr)
  end)

  it("passes a file as input to the command with -i", function()
    local shell = ("'%s' --endpoint %s --state-dir %s exec -i %s -- cat < LICENSE"):format(process.program, endpoint, jobs.state_dir, name)
    local result = process.run({ "-c", shell }, { program = "sh" })
    local file <close> = assert(io.open "LICENSE")
    assert.equal(file:read "a", result.stdout)
  end)

  it("gives the command a terminal with -t", function()
    local shell = ("script -qec \"'%s' --endpoint %s --state-dir %s exec -it %s -- tty\" /dev/null < /dev/null"):format(
      process.program, endpoint, jobs.state_dir, name)
    local result = process.run({ "-c", shell }, { program = "sh" })
    assert.matches("/dev/pts/0", result.stdout)
  end)

  it("restores the caller's terminal", function()
    local path, file = jobs.write(([[
      before=$(stty -g)
      '%s' --endpoint %s --state-dir %s exec -it %s -- true
      [ "$(stty -g)" = "$before" ] && echo the same]]):format(process.program, endpoint, jobs.state_dir, name), ".sh")
    local _ <close> = file
    local result = process.run({ "-c", ("script -qec 'sh %s' /dev/null < /dev/null"):format(path) }, { program = "sh" })
    assert.matches("the same", result.stdout)
  end)

  it("passes the size of the caller's terminal, its changes, and what is typed", function()
    local seen, seen_file = jobs.write("", ".log")
    local path, file = jobs.write(([[
      stty rows 33 cols 101
      (until grep -q '33 101' %s; do sleep 0.1; done; stty rows 20 cols 60 </dev/tty) &
      '%s' --endpoint %s --state-dir %s exec -it %s -- sh -c '
        await() { until [ "$(stty size)" = "$*" ]; do sleep 0.1; done; stty size; }
        await 33 101; read line; await 20 60; echo got $line']]):format(seen, process.program, endpoint, jobs.state_dir, name), ".sh")
    local _ <close> = file
    local _ <close> = seen_file
    local shell = ([[
      wait_for() { until grep -q "$1" %s; do sleep 0.1; done; }
      (wait_for '33 101'; echo hello; wait_for 'got hello') | timeout 60 script -qefc 'sh %s' %s]]):format(seen, path, seen)
    local result = process.run({ "-c", shell }, { program = "sh", timeout = 90 })
    assert.matches("33 101\r\n.*20 60\r\ngot hello\r\n", result.stdout)
  end)

  it("prints the output of `exec` as JSON", function()
    local result = exec { "--json", name, "--", "sh", "-c", "echo x; exit 3" }
    assert.same({ exit_code = 3, stdout = "x\n", stderr = "" }, dockrun.json.decode(result.stdout))
  end)

  for _, value in ipairs { "0", "1.5", "x" } do
    it("refuses to count to " .. value .. " for `stats`", function()
      local result = jobs.dockrun(endpoint, { "stats", "-n", value })
      assert.equal(2, result.code)
      assert.matches("--count: expected a whole number", result.stderr, 1, true)
    end)
  end

  for _, case in ipairs {
    { "a job that is not there", { "nonesuch", "--", "true" }, 1, "no task matches 'nonesuch'" },
    { "-t without a terminal", { "-t", "x", "--", "true" }, 2, "needs a terminal" },
    { "no command", { "x" }, 2, "'cmd'" },
  } do
    local what, args, code, message = table.unpack(case)
    it("refuses " .. what, function()
      local result = exec(args)
      assert.equal(code, result.code)
      assert.matches(message, result.stderr, 1, true)
    end)
  end

  it("is not chosen for `exec` if the job has several", function()
    local several = jobs.unique "several"
    local path, file = jobs.write(([[return job %q { group "g" { count = 2,
      task "a" { driver = "docker", kill_timeout = 0, config = { image = "busybox:1", command = "sleep", args = { "600" } } },
      task "b" { driver = "docker", kill_timeout = 0, config = { image = "busybox:1", command = "sleep", args = { "600" } } },
    } }]]):format(several))
    local _ <close> = file
    local _ <close> = setmetatable({}, { __close = function()
      jobs.dockrun(endpoint, { "stop", several })
    end })
    assert.equal(0, jobs.dockrun(endpoint, { "run", "-d", path }).code)
    local result = exec { several, "--", "true" }
    assert.equal(2, result.code)
    assert.matches(("name one of %s/a, %s/b\n"):format(several, several), result.stderr, 1, true)
    assert.equal(0, exec({ several .. "/b", "--", "true" }).code)
  end)

  it("has its figures printed by `stats`", function()
    local result = jobs.dockrun(endpoint, { "--json", "stats", name })
    local told = dockrun.json.decode(result.stdout).tasks
    assert.equal(1, #told)
    assert.same({ name, "task", 32 * 1024 * 1024, 1 }, { told[1].job, told[1].task, told[1].memory_limit, told[1].pids })
    assert.is_true(told[1].memory > 0 and told[1].cpu_percent >= 0)
    local text = jobs.dockrun(endpoint, { "stats", name })
    assert.matches("TASK +CPU%%", text.stdout)
    assert.matches(name .. ".group[0].task", text.stdout, 1, true)
  end)
end)
