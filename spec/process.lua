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
-- No child outlives its spec: `<close>` kills it when its scope ends, also by an error. A child without `<close>` ends with
-- its file, and all children end with this process, however that ends.
local dockrun = require "dockrun"
local uv = require "luv"

local M = {}

--- The dockrun that runs this spec.
M.program = uv.exepath()

local PATIENCE = 180 -- seconds, the default; longer than a slow machine needs, so only a hang reaches it

-- Variables that name the docker command's engine, and the shell that script(1) runs; a spec that needs one sets it.
local NOT_INHERITED = {
  "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_API_VERSION", "SHELL",
}

---@class ProcessOptions
---@field program? string          M.program if left out; looked for along PATH
---@field env? table<string, string|false>  on top of this process's environment; false removes a name
---@field stdin? string|true       the whole input; true: see Child:write. Without it the input is empty
---@field cwd? string
---@field timeout? number          limit for each wait for the child, in seconds: 180

---@class ProcessResult
---@field code? integer    exit code; nil if a signal ended the child, so that a crash never looks like success
---@field signal? string   the signal's name, such as "SIGKILL"
---@field stdout string
---@field stderr string

---@class Child
---@field pid integer
---@field stdout string    everything that it has written until now
---@field stderr string
---@field result? ProcessResult  once it has ended and its output is complete
local Child = {}
Child.__index = Child

local running = {} ---@type table<Child, true>

-- A config file without options: no spec reads the host's files.
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

-- Wakes every waiter after output or the end of the child: each checks its condition again.
local function wake_watchers(self)
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

-- Waits for condition() to return a true value, and returns its results; returns nil after the time-out.
local function watch(self, timeout, condition)
  local deadline, news = dockrun.now() + timeout, dockrun.queue()
  self.watchers[news] = true
  local found = table.pack(condition())
  while not found[1] and dockrun.now() < deadline do
    news:pop(math.max(deadline - dockrun.now(), 0))
    found = table.pack(condition())
  end
  self.watchers[news] = nil
  return table.unpack(found, 1, found.n)
end

-- Raises an error with the child's whole output.
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
    wake_watchers(self)
  end)
end

--- Starts a child in the background. If the program does not exist, the child ends with exit code 127.
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
    wake_watchers(self)
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

--- Runs a child to its end; kills it and raises an error after the time-out.
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

--- Iterates over the lines of stdout as they arrive, without newlines; ends with the output. Two loops share the lines.
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

--- Waits until stdout or stderr matches a pattern, searching everything that was written since the start; raises
--- an error if the child ends without a match, or after the time-out.
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

--- Sends a signal; false if the child has ended already.
---@param signal? string|integer  "SIGTERM" if left out
---@return boolean sent
function Child:kill(signal)
  if self.exit then return false end
  signal = signal or "SIGTERM"
  return self.process:kill(type(signal) == "string" and signal:lower() or signal) == 0
end

--- Waits for the child's end and the end of its output; after the time-out it raises an error and leaves the child running.
---@param timeout? number  seconds
---@return ProcessResult
function Child:wait(timeout)
  timeout = timeout or self.timeout
  return watch(self, timeout, function() return self.result end) or fail(self, "still runs after %g s", timeout)
end

--- Kills the child if it still runs, and waits for its end. May be called twice.
function Child:close()
  running[self] = nil
  self:kill "SIGKILL"
  if self.input then self:write(nil) end
  watch(self, self.timeout, function() return self.exit end)
end

Child.__close = Child.close

-- Children that a spec did not close.
local subscribe = package.loaded.busted and require("busted").subscribe
if subscribe then
  subscribe({ "file", "end" }, function()
    while next(running) do next(running):close() end
    return nil, true  -- the next subscriber's turn
  end)
end

return M
