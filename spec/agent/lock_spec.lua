-- Processes that ask each other by the sockets of the state directory: none makes another wait without end, and only those
-- who may are answered. On a real engine.
local commands = require "spec.commands"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local process = require "spec.process"
local states = require "spec.states"
local uv = require "luv"

local NOBODY = "65534"

-- Sends `text` to a socket, and says what came back until the end: "answer: …", or "nothing".
local CLIENT = [[
local uv, queue = require "luv", require("dockrun").queue()
local pipe = uv.new_pipe()
pipe:connect(arg[1], function(why)
  if why then return queue:push("refused: " .. why) end
  pipe:write(arg[2])
  local text = ""
  pipe:read_start(function(_, data)
    text = text .. (data or "")
    if not data then queue:push(text == "" and "nothing" or "answer: " .. text) end
  end)
end)
print(queue:pop(20) or "waits")]]

describe("another dockrun process", function()
  local engine, endpoint, name, path, client

  setup(function() engine, endpoint = engines.ready() end)

  local function dockrun_with(...) return commands.run(endpoint, ...) end
  local function start(...) return commands.start(endpoint, ...) end

  -- The one socket, once it is there: an agent says that it is watching before it listens.
  local function socket()
    return eventually("there is a socket", function()
      local entries = uv.fs_scandir(states.dir .. "/jobs")
      local entry = entries and uv.fs_scandir_next(entries)
      while entry and uv.fs_scandir_next(entries) do end
      return entry and ("%s/jobs/%s"):format(states.dir, entry)
    end)
  end

  local function start_agent(...)
    local child = start("agent", "--json", ...)
    child:wait_for "watching "
    socket()
    return child
  end

  local function start_job(...)
    local child = start("run", "--json", path, ...)
    child:wait_for '"event":"started"'
    return child
  end

  local function mode(at) return ("%o"):format(assert(uv.fs_stat(at)).mode & tonumber("7777", 8)) end

  local function ask_as(identity, text)
    local args = table.move(identity, 1, #identity, 1, {})
    table.move({ process.program, client, socket(), text }, 1, 4, #args + 1, args)
    return (process.run(args, { program = "setpriv" }).stdout:gsub("\n+$", ""))
  end

  before_each(function()
    states.begin()
    name = jobs.unique "claim"
    path = jobs.write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600" })
    client = states.dir .. ".client.lua"
    local file <close> = assert(io.open(client, "w"))
    file:write(CLIENT)
  end)
  after_each(function()
    dockrun_with("stop", "--purge", name)
    os.remove(path)
    os.remove(client)
    local left = commands.remove(engine, name)
    states.finish()
    assert.equal(0, left)
  end)

  -- ---- what does nothing ------------------------------------------------------------------------

  it("that is stopped is named by a command that waits for it; once it is dead, the next takes over", function()
    local watcher <close> = start_job()
    watcher:kill "SIGSTOP"
    local result = dockrun_with("--set", "answer_timeout=1", "stop", name)
    assert.equal(1, result.code)
    assert.matches(("process that watches job '%s' (process %d) has not responded for 1 s: a signal has stopped it"):format(
      name, watcher.pid), result.stderr, 1, true)
    assert.equal(1, #jobs.containers(engine, name))
    result = dockrun_with("run", path)
    assert.equal(1, result.code)
    assert.matches(("(process %d)"):format(watcher.pid), result.stderr, 1, true)
    watcher:kill "SIGKILL"
    assert.equal(0, dockrun_with("stop", name).code)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("that dies while a command waits for it is taken over at once", function()
    local watcher <close> = start_job()
    watcher:kill "SIGSTOP"
    local stop <close> = start("stop", "--set", "answer_timeout=100", name)
    stop:wait_for("", 1)
    dockrun.sleep(0.5)
    watcher:kill "SIGKILL"
    assert.equal(0, stop:wait().code)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("that is stopped keeps its job, however many others have knocked", function()
    local watcher <close> = start_job()
    local at = socket()
    watcher:kill "SIGSTOP"
    local pipes <close> = setmetatable({}, { __close = function(all) for _, one in ipairs(all) do one:close() end end })
    for i = 1, 300 do  -- more than its backlog
      pipes[i] = uv.new_pipe()
      pipes[i]:connect(at, function() end)
    end
    local result = dockrun_with("run", path)
    assert.equal(1, result.code)
    assert.matches("is run by another dockrun", result.stderr, 1, true)
    result = dockrun_with("--set", "answer_timeout=1", "stop", name)
    assert.equal(1, result.code)
    assert.matches("has not responded for 1 s", result.stderr, 1, true)
    assert.equal(1, #jobs.containers(engine, name))
  end)

  it("that is busy for long is waited for, or for as long as the command says", function()
    os.remove(path)
    path = jobs.write(jobs.text {
      name = name, image = "busybox:1", command = "trap : TERM; while :; do sleep 1; done", task = 'kill_signal = "SIGTERM"',
    })
    local watcher <close> = start_job()
    local result = dockrun_with("--set", "answer_timeout=0.1", "stop", "--timeout", "10ms", name)
    assert.equal(1, result.code)
    assert.matches(("(process %d) did not finish within 0.01 s"):format(watcher.pid), result.stderr, 1, true)
    assert.equal(0, dockrun_with("--set", "answer_timeout=2", "stop", name).code)
  end)

  it("that is a stopped agent is no place to hand a job to", function()
    local agent <close> = start_agent()
    agent:kill "SIGSTOP"
    local result = dockrun_with("--set", "answer_timeout=1", "run", "-d", path)
    assert.equal(1, result.code)
    assert.matches(("the agent (process %d) has not responded"):format(agent.pid), result.stderr, 1, true)
    assert.same({}, jobs.containers(engine, name))
  end)

  -- { what the other side says, how `run -d` ends }
  local answers = {
    { "no object", "5\n", 1, "gave an invalid answer" },
    { "no JSON", "{{{\n", 1, "gave an invalid answer" },
    { "an error of no shape", '{"error":5}\n', 1, "gave an invalid answer" },
    { "an error of another shape", '{"error":{"kind":5,"message":[]}}\n', 1, "gave an invalid answer" },
    { "failures of no shape", '{"failures":7}\n', 0, "" },
    { "deep nesting", ("["):rep(100000) .. "\n", 1, "gave an invalid answer" },
    { "no end", ("x"):rep(40 << 20), 1, "gave an invalid answer" },
    { "half a line", '{"failures"', 1, "has not responded" },
    { "nothing", "", 1, "has not responded" },
  }

  it("that answers nonsense ends no command in another way than by an error", function()
    local agent = start_agent()
    local at = socket()
    agent:close()
    uv.fs_unlink(at)
    local reply
    local server, clients = uv.new_pipe(), {}
    local _ <close> = setmetatable({}, { __close = function()
      for _, one in ipairs(clients) do one:close() end
      server:close()
    end })
    assert(server:bind(at))
    assert(server:listen(128, function()
      local one = uv.new_pipe()
      clients[#clients + 1] = one
      server:accept(one)
      one:read_start(function(_, data)
        if data and #data > 1 then one:write(reply) end
      end)
    end))
    for _, case in ipairs(answers) do
      reply = case[2]
      local result = dockrun_with("--set", "answer_timeout=0.5", "run", "-d", path)
      assert.same({ case[1], case[3] }, { case[1], result.code }, result.stderr)
      assert.matches(case[4], result.stderr, 1, true)
      assert.is_nil(result.stderr:find("traceback", 1, true))
    end
    assert.same({}, jobs.containers(engine, name))
  end)

  -- ---- who may ask ------------------------------------------------------------------------------

  it("listens where its own user alone gets to, whatever the umask is and the directory was", function()
    assert(uv.fs_mkdir(states.dir .. "/jobs", 511))
    for _, one in ipairs { "/jobs", "" } do assert(uv.fs_chmod(states.dir .. one, 511)) end
    local args = commands.words(endpoint, "agent")
    table.move({ "-c", 'umask 0; exec "$0" "$@"', process.program }, 1, 3, 1, table.move(args, 1, #args, 4))
    local agent <close> = process.start(args, { program = "sh" })
    agent:wait_for "watching "
    assert.same({ "700", "700" }, { mode(states.dir), mode(states.dir .. "/jobs") })
    -- The agent says that it watches before its socket is there, and the socket gets its mode after its name.
    eventually("the socket has mode 600", function() return uv.fs_stat(socket()) and mode(socket()) == "600" end)
  end)

  it("answers root and its own user, and nobody else who gets to the socket", function()
    if uv.getuid() ~= 0 then return end
    local agent <close> = start_agent()
    assert.matches("answer: .*not a job", ask_as({}, '{"source":5}\n'))
    uv.fs_chmod(states.dir, tonumber("711", 8))
    uv.fs_chmod(states.dir .. "/jobs", tonumber("711", 8))
    uv.fs_chmod(socket(), tonumber("666", 8))
    assert.equal("nothing", ask_as({ "--reuid", NOBODY, "--clear-groups" }, '{"source":5}\n'))
    agent:wait_for(("refused a request of user %s %%(process %%d+%%)"):format(NOBODY))
  end)

  it("answers the members of socket_group as well", function()
    if uv.getuid() ~= 0 then return end
    local _ <close> = start_agent("--set", "socket_group=daemon")
    assert.same({ "711", "710", "660" }, { mode(states.dir), mode(states.dir .. "/jobs"), mode(socket()) })
    assert.matches("answer: ", ask_as({ "--reuid", NOBODY, "--regid", NOBODY, "--groups", "daemon" }, '{"source":5}\n'))
    assert.matches("refused: EACCES", ask_as({ "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups" }, "{}\n"))
    local result = dockrun_with("--set", "socket_group=no-such-group", "agent")
    assert.equal(2, result.code)
    assert.matches("option 'socket_group': there is no group 'no-such-group'", result.stderr, 1, true)
  end)
end)
