-- The output of tasks is shown byte for byte, without loss or repetition; and the commands that show it.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"

describe("the output of tasks", function()
  local endpoint, name

  setup(function()
    local shared = engines.shared()
    endpoint = shared.endpoint
    engines.image(shared, "busybox:1")
    name = jobs.unique "talks"
    local path, file = jobs.write(jobs.text { name = name, image = "busybox:1",
      command = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done", config = "" })
    local _ <close> = file
    local result = jobs.dockrun(endpoint, { "run", "-d", path })
    assert(result.code == 0, result.stderr)
  end)

  teardown(function() jobs.dockrun(endpoint, { "stop", name }) end)

  -- Runs a job in the foreground and returns its output.
  local function run(command, config, args)
    local path, file = jobs.write(jobs.text { name = jobs.unique "bytes", image = "busybox:1", command = command, config = config })
    local _ <close> = file
    return jobs.dockrun(endpoint, { "run", path, table.unpack(args or {}) })
  end

  -- A shell with the command's words as "$@".
  local function shell(words, args)
    return process.run({ "-c", words, "-", process.program, "--endpoint", endpoint, "--state-dir", jobs.state_dir, table.unpack(args) },
      { program = "bash" })
  end

  local mixed = [[printf 'one\r\n\n'; printf '\001\033[31m\n'; head -c 40000 /dev/zero | tr '\0' x; echo; printf last]]
  local bytes = { "one\r\n", "\n", "\1\27[31m\n", ("x"):rep(40000) .. "\n", "last" }

  it("is shown whole by run, with a last line that has no newline", function()
    local result = run(mixed)
    assert.equal("task | " .. table.concat(bytes, "task | "), result.stdout, result.stderr)
  end)

  it("is shown whole by run if the task has a terminal", function()
    assert.equal("task | one\r\ntask | two", run("echo one; printf two", "tty = true").stdout)
  end)

  it("has no control sequences with --plain", function()
    assert.equal("task | red\ntask | a\tb\n", run([[printf '\033[31mred\033[0m\r\n\033]0;title\007a\tb\n']], nil, { "--plain" }).stdout)
  end)

  it("is not printed by run -d", function()
    local path, file = jobs.write(jobs.text { name = jobs.unique "detached", image = "busybox:1",
      command = "yes | head -n 1000; sleep 60" })
    local _ <close> = file
    local result = jobs.dockrun(endpoint, { "run", "-d", path })
    assert.same({ 0, "" }, { result.code, result.stdout })
    jobs.dockrun(endpoint, { "stop", dockrun.load_job(path).name })
  end)

  it("is shown from now on if a running job is run again", function()
    local path, file = jobs.write(jobs.text { name = jobs.unique "again", image = "busybox:1",
      command = "echo old; trap 'printf new; exit 0' TERM; touch /local/ready; while :; do sleep 0.1; done",
      task = [[kill_timeout = "2m",]] })
    local _ <close> = file
    jobs.await_ready(jobs.dockrun(endpoint, { "run", "-d", "--json", path }).stdout:match '"alloc":"([^"]+)"')
    local child <close> = process.start { "--endpoint", endpoint, "--state-dir", jobs.state_dir, "run", path }
    child:wait_for "reattached"
    child:kill "SIGINT"
    assert.equal("task | new", child:wait().stdout)
  end)

  describe("that is lost from the engine's log", function()
    -- The engine's log holds 20 kB; the task writes 5,000 lines at a time.
    local bursts = "i=0; while [ $i -lt 5 ]; do seq $((i * 5000 + 1)) $((i * 5000 + 5000)); usleep 300000; i=$((i + 1)); done; "
    local small = "logging = { config = { ['max-size'] = '10k', ['max-file'] = '2' } }"
    local said = "task: output after %S+ may be missing from the engine's log: [^\n]+; "
      .. "give the task's `logging` a larger max%-size or max%-file\n"

    -- The lines are in order, without repetition.
    local function assert_order(text, pattern)
      local last = 0
      for line in text:gmatch "[^\n]+" do
        local number = tonumber(line:match(pattern))
        assert(number and number > last, line)
        last = number
      end
      return last
    end

    for what, tty in pairs { ["its pipes"] = "", ["a terminal"] = ", tty = true" } do
      it("is reported as missing by run, once, from "  .. what, function()
        local result = run(bursts, small .. tty)
        assert.equal(0, result.code)
        assert.equal(25000, assert_order(result.stdout, "^task | (%d+)\r?$"))
        local _, times = result.stderr:gsub(said, "")
        assert.equal(1, times, result.stderr)
      end)
    end

    it("is not reported as missing if it is complete", function()
      local result = run(bursts, "logging = { config = { ['max-size'] = '9m' } }")
      assert.equal(25000, select(2, result.stdout:gsub("\n", "")))
      assert.is_nil(result.stderr:find "missing", result.stderr)
    end)
  end)

  describe("of a task that ended", function()
    local ended

    setup(function()
      ended = jobs.unique "ended"
      local path, file = jobs.write(jobs.text { name = ended, image = "busybox:1", command = "sleep 1; " .. mixed })
      local _ <close> = file
      assert.equal(0, jobs.dockrun(endpoint, { "run", "-d", path }).code)
    end)

    teardown(function() jobs.dockrun(endpoint, { "stop", ended }) end)

    for what, args in pairs { ["logs -f"] = { "-f" }, logs = {}, ["logs -f --tail"] = { "-f", "--tail", "10" } } do
      it("is shown by " .. what, function()
        if what == "logs" then jobs.dockrun(endpoint, { "logs", "-f", ended }) end
        assert.equal(table.concat(bytes), jobs.dockrun(endpoint, { "logs", ended, table.unpack(args) }).stdout)
      end)
    end

    it("is printed as lines by logs --json", function()
      local lines = {}
      for line in jobs.dockrun(endpoint, { "--json", "logs", "-f", ended }).stdout:gmatch "[^\n]+" do
        lines[#lines + 1] = dockrun.json.decode(line).line
      end
      assert.same({ "one\r", "", "\1\27[31m", ("x"):rep(40000), "last" }, lines)
    end)
  end)

  it("of a command arrives whole on a terminal whose reader is slow", function()
    for _, how in ipairs { "-i", "-t" } do
      local words = ([[script -qec "'%s' --endpoint %s --state-dir '%s' exec %s %s -- seq 1 60000" /dev/null </dev/null |
        (sleep 1; tr -d '\r' | md5sum)
        seq 1 60000 | md5sum]]):format(process.program, endpoint, jobs.state_dir, how, name)
      local sums = {}
      for sum in shell(words, {}).stdout:gmatch "%x+  %-" do sums[#sums + 1] = sum end
      assert.equal(2, #sums)
      assert.equal(sums[2], sums[1], how)
    end
  end)

  it("of a command flows in both directions at once", function()
    local result = shell([[seq 1 200000 | "$@" | md5sum; seq 1 200000 | md5sum]], { "exec", "-i", name, "--", "cat" })
    local sum = result.stdout:match "%x+"
    assert.equal(("%s  -\n%s  -\n"):format(sum, sum), result.stdout, result.stderr)
  end)

  it("leaves the caller's input unread once the command has ended", function()
    assert.equal("late\n", shell([[(sleep 2; echo late) | ("$@"; cat)]], { "exec", "-i", name, "--", "true" }).stdout)
  end)

  it("is an error if it cannot be written", function()
    for _, args in ipairs { { "exec", name, "--", "echo", "x" }, { "logs", name }, { "events" } } do
      local result = shell([["$@" >/dev/full; echo $?]], args)
      assert.equal("1\n", result.stdout)
      assert.equal("dockrun: error: cannot write the results: No space left on device\n", result.stderr)
    end
  end)

  for what, args in pairs {
    ["logs -f"] = { "logs", "-f", "?" }, ["logs -f --json"] = { "--json", "logs", "-f", "?" }, exec = { "exec", "?", "--", "yes" },
    ["events -f"] = { "events", "-f" },
  } do
    it("ends with 141, quietly, when the reader is gone: " .. what, function()
      local words = {}
      for i, word in ipairs(args) do words[i] = word == "?" and name or word end
      local result = shell([["$@" | head -n 1 | wc -l; echo "${PIPESTATUS[0]}"]], words)
      assert.same({ "1\n141\n", "" }, { result.stdout, result.stderr })
    end)
  end

  it("is dropped by run when the reader is gone; the tasks matter more", function()
    local path, file = jobs.write(jobs.text { name = jobs.unique "pager", image = "busybox:1",
      command = "yes | head -n 200000; sleep 1; exit 7" })
    local _ <close> = file
    local result = shell([["$@" | head -n 1; echo "${PIPESTATUS[0]}"]], { "run", path })
    assert.equal("task | y\n1\n", result.stdout)
    assert.matches("exit code 7", result.stderr)
  end)

  it("is kept for a reader that pauses, and the task is restarted meanwhile", function()
    local path, file = jobs.write(jobs.text { name = jobs.unique "paused", image = "busybox:1",
      command = "yes $(printf %0100d 1) | head -n 8000; exit 1", restart = [[attempts = 1, delay = "0s", mode = "fail", interval = "1h"]] })
    local _ <close> = file
    local result = shell([[
      said=$(mktemp)
      "$@" 2>"$said" | (until [ "$(grep -c exited "$said")" = 2 ]; do sleep 0.1; done; wc -l)
      rm "$said"]], { "run", path })
    assert.equal("16000\n", result.stdout)
  end)
end)
