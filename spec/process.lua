-- Runs the dockrun under test, or another program, as a child process of a spec.
--
--   local result = process.run({ "validate", path }, { env = { NO_COLOR = "1" } })
--   assert.equal(2, result.code)
--
--   local child <close> = process.start { "run", path }
--   child:wait_for "started"
--   child:kill "SIGINT"
--   assert.equal(130, child:wait().code)
--
-- No child outlives its spec: `<close>` kills it when its scope ends, by an error too; what has no `<close>` ends with
-- its file, and all end with this process, however that ends.
local dockrun = require "dockrun"
local uv = require "luv"

local M = {}

--- The dockrun that runs this spec.
M.program = uv.exepath()

local PATIENCE = 180 -- seconds, where nothing else is said: a hang, and not a slow machine

-- Where the docker command looks for its engine, and the shell that script(1) runs; a spec says itself what it wants.
local NOT_INHERITED = {
  "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_API_VERSION", "SHELL",
}

---@class ProcessOptions
---@field program? string          M.program if left out; looked for along PATH
---@field env? table<string, string|false>  on top of this process's environment; false takes a name away
---@field stdin? string|true       all of the input; true: see Child:write. Without it the input is empty
---@field cwd? string
---@field timeout? number          seconds that anything about the child may take: 180

---@class ProcessResult
---@field code? integer    exit code; nil where a signal ended the child, so that a crash is never taken for success
---@field signal? string   the signal's name, such as "SIGKILL"
---@field stdout string
---@field stderr string

---@class Child
---@field pid integer
---@field stdout string    all that it has written until now
---@field stderr string
---@field result? ProcessResult  once it has ended and its output is complete
local Child = {}
Child.__index = Child

local running = {} ---@type table<Child, true>

-- A config without options: what the host's files say counts in no spec.
local NO_CONFIG = uv.cwd() .. "/spec/no_config.lua"

local function environment(changes)
  local env = uv.os_environ()
  for _, name in ipairs(NOT_INHERITED) do env[name] = nil end
  env.DOCKRUN_CONFIG = NO_CONFIG
  for name, value in pairs(changes or {}) do env[name] = value or nil end
  local list = {}
  for name, value in pairs(env) do list[#list + 1] = name .. "=" .. value end
  return list
end

local function signal_name(number)
  for name, value in pairs(uv.constants) do
    if value == number and name:match "^SIG%u" then return name end
  end
end

-- Something came from the child: everyone who waits for it looks again.
local function tell(self)
  if self.exit and self.open == 0 and not self.result then
    local code, signal = table.unpack(self.exit)
    self.result = {
      code = signal == 0 and code or nil, signal = signal ~= 0 and signal_name(signal) or nil,
      stdout = self.stdout, stderr = self.stderr,
    }
    running[self] = nil
  end
  for news in pairs(self.watchers) do news:push(true) end
end

-- Waits for look() to return something, and returns that; nothing once the time is over.
local function watch(self, timeout, look)
  local deadline, news = dockrun.now() + timeout, dockrun.queue()
  self.watchers[news] = true
  local found = table.pack(look())
  while not found[1] and dockrun.now() < deadline do
    news:pop(math.max(deadline - dockrun.now(), 0))
    found = table.pack(look())
  end
  self.watchers[news] = nil
  return table.unpack(found, 1, found.n)
end

-- What happened, with all that the child has said.
local function fail(self, what, ...)
  error(("%s: %s\n--- stdout\n%s\n--- stderr\n%s"):format(self.name, what:format(...), self.stdout, self.stderr), 0)
end

local function read(self, pipe, name)
  self.open = self.open + 1
  pipe:read_start(function(_, data)
    if data then
      self[name] = self[name] .. data
    else
      pipe:close()
      self.open = self.open - 1
    end
    tell(self)
  end)
end

--- Starts a child in the background. Where there is no such program, it ends with code 127.
---@param args string[]  without the program's name
---@param opts? ProcessOptions
---@return Child
function M.start(args, opts)
  opts = opts or {}
  local program = opts.program or M.program
  local self = setmetatable({
    name = program .. " " .. table.concat(args, " "), timeout = opts.timeout or PATIENCE, stdout = "", stderr = "",
    open = 0, read_to = 1, watchers = setmetatable({}, { __mode = "k" }),
  }, Child)
  local out, err = uv.new_pipe(), uv.new_pipe()
  self.input = opts.stdin and uv.new_pipe()
  local why
  self.process, why = uv.spawn("setpriv", {  -- so that it ends with this process
    args = { "--pdeathsig", "KILL", "--", program, table.unpack(args) },
    stdio = { self.input or nil, out, err }, env = environment(opts.env), cwd = opts.cwd,
  }, function(...)
    self.exit = { ... }
    self.process:close()
    tell(self)
  end)
  if not self.process then fail(self, "cannot start it: %s", why) end
  self.pid = why
  running[self] = true
  read(self, out, "stdout")
  read(self, err, "stderr")
  if type(opts.stdin) == "string" then
    self:write(opts.stdin)
    self:write(nil)
  end
  return self
end

--- Runs a child to its end; raises, having killed it, where that takes longer than the time-out.
---@param args string[]  without the program's name
---@param opts? ProcessOptions
---@return ProcessResult
function M.run(args, opts)
  local child <close> = M.start(args, opts)
  return child:wait()
end

--- Sends input to a child started with `stdin = true`; nil ends the input.
---@param text? string
function Child:write(text)
  if text then
    self.input:write(text)
  elseif not self.input:is_closing() then
    self.input:shutdown(function() self.input:close() end)
  end
end

--- Each line of stdout, as it comes, without its newline; ends with the output. Two loops share the lines.
---@return fun(): string?
function Child:lines()
  return function()
    local line, past = watch(self, self.timeout, function()
      local text, past = self.stdout:match("^([^\n]*)\n()", self.read_to)
      if text or not self.result then return text, past end
      return self.stdout:match("^([^\n]+)()$", self.read_to) or "", nil
    end)
    if not line then fail(self, "no line came within %g s", self.timeout) end
    if not past and line == "" then return nil end
    self.read_to = past or #self.stdout + 1
    return line
  end
end

--- Waits until stdout or stderr matches a pattern, looking at all that was written since the start; raises where the
--- child ends without, or the time is over.
---@param pattern string
---@param timeout? number  seconds
---@return string ...  as of string.match
function Child:wait_for(pattern, timeout)
  timeout = timeout or self.timeout
  local text = watch(self, timeout, function()
    return self.stdout:find(pattern) and self.stdout or self.stderr:find(pattern) and self.stderr or self.result
  end)
  if not text then fail(self, "did not say '%s' within %g s", pattern, timeout) end
  if text == self.result then fail(self, "ended and never said '%s'", pattern) end
  return text:match(pattern)
end

--- Sends a signal; false where the child has ended already.
---@param signal? string|integer  "SIGTERM" if left out
---@return boolean sent
function Child:kill(signal)
  if self.exit then return false end
  signal = signal or "SIGTERM"
  return self.process:kill(type(signal) == "string" and signal:lower() or signal) == 0
end

--- Waits for the child's end and the end of its output; raises, and lets it run on, where that takes too long.
---@param timeout? number  seconds
---@return ProcessResult
function Child:wait(timeout)
  timeout = timeout or self.timeout
  return watch(self, timeout, function() return self.result end) or fail(self, "still runs after %g s", timeout)
end

--- Kills the child if it still runs, and waits until it is gone. May be called twice.
function Child:close()
  running[self] = nil
  self:kill "SIGKILL"
  if self.input then self:write(nil) end
  watch(self, self.timeout, function() return self.exit end)
end

Child.__close = Child.close

-- The children that a spec forgot.
local subscribe = package.loaded.busted and require("busted").subscribe
if subscribe then
  subscribe({ "file", "end" }, function()
    while next(running) do next(running):close() end
    return nil, true  -- the next subscriber's turn
  end)
end

return M
