-- Job files for specs: written to a directory of their own, removed with it, and run by the dockrun under test.
local dockrun = require "dockrun"
local eventually = require "spec.eventually"
local process = require "spec.process"
local uv = require "luv"

local M = {}

--- The name of the specs' state directories; each has its process's pid appended.
M.state_prefix = "spec-state-"

--- The state directory of this process's specs, in the build tree of this checkout.
M.state_dir = ("%s/build/%s%d"):format(uv.cwd(), M.state_prefix, uv.os_getpid())

--- A name that no other copy of the specs uses at this moment.
---@param stem string
---@return string
function M.unique(stem) return ("%s-%d-%x"):format(stem, uv.os_getpid(), uv.hrtime() & 0xffffff) end

--- Writes text to a new file and returns its path. It is removed with `<close>` of the second value.
---@param text string
---@param ending? string  ".lua" by default
---@return string path
---@return table file  to be closed
function M.write(text, ending)
  local path = ("%s/%s%s"):format(uv.os_tmpdir(), M.unique "job", ending or ".lua")
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
  return path, setmetatable({}, { __close = function() os.remove(path) end })
end

--- The text of a job with one task that runs a shell command.
---@param o { name: string, image: string, command: string, resources?: string, config?: string, task?: string,
---  job?: string, group?: string, restart?: string }  the last six: more lines of Lua at their places; without `restart`,
---  a task runs once
---@return string
function M.text(o)
  return ([[
return job %q {
  type = "batch",
  %s
  group "group" {
    restart = { %s },
    %s
    task "task" {
      driver = "docker",
      config = { image = %q, command = "sh", args = { "-c", %q }, %s },
      kill_timeout = "1s",
      resources = { %s },
      %s
    },
  },
}]]):format(o.name, o.job or "", o.restart or "attempts = 0", o.group or "", o.image, o.command, o.config or "",
    o.resources or "memory = 32", o.task or "")
end

--- Shell code that waits for M.open of this name.
---@param name string
---@return string
function M.gate(name) return ("until test -e /alloc/%s; do sleep 0.05; done"):format(name) end

--- Lets the tasks of an allocation continue that wait at a gate.
---@param alloc string  its id
---@param name string
function M.open(alloc, name) assert(io.open(("%s/alloc/%s/alloc/%s"):format(M.state_dir, alloc, name), "w")):close() end

--- Waits until a task has made the file /local/ready: by then its shell has set its traps.
---@param alloc string   its id
---@param task? string   "task" if left out
function M.await_ready(alloc, task)
  local path = ("%s/alloc/%s/%s/local/ready"):format(M.state_dir, alloc, task or "task")
  eventually("there is " .. path, function() return uv.fs_stat(path) end)
end

--- Starts `dockrun run --json` on a job's text. The child has `events()`: all that it has printed until now.
---@param endpoint string
---@param text string
---@param args? string[]  further arguments
---@param ending? string
---@return Child
function M.start(endpoint, text, args, ending)
  local path, file = M.write(text, ending)
  local words = { "run", "--json", "--endpoint", endpoint, "--state-dir", M.state_dir, path, table.unpack(args or {}) }
  local child = process.start(words)
  child.file = file
  function child:events()
    local events = {}
    for line in self.stdout:gmatch "([^\n]+)\n" do events[#events + 1] = assert(dockrun.json.decode(line)) end
    return events
  end
  --- Waits for the first event of this name and returns it.
  function child:event(name, timeout)
    self:wait_for(('"event":"%s"'):format(name), timeout)
    for _, event in ipairs(self:events()) do
      if event.event == name then return event end
    end
  end
  --- The next event of this name, of this task if one is given. Earlier events are skipped.
  function child:next_event(name, task)
    for line in self:lines() do
      local event = assert(dockrun.json.decode(line))
      if event.event == name and (not task or event.task == task) then return event end
    end
    error(("no event '%s' of %s\n%s%s"):format(name, task or "any task", self.stdout, self.stderr), 2)
  end
  return child
end

--- Waits for the end of a child that M.start() started.
---@return ProcessResult result  with `events`, a list, and `by`, the last event of each name
function M.finish(child)
  local result = child:wait()
  result.events, result.by = child:events(), {}
  for _, event in ipairs(result.events) do result.by[event.event] = event end
  return result
end

--- Runs a job to its end.
---@return ProcessResult result  with `events`, a list, and `by`, the last event of each name
function M.run(endpoint, text, args, ending)
  local child <close> = M.start(endpoint, text, args, ending)
  local _ <close> = child.file
  return M.finish(child)
end

--- Runs a command on an engine and on the specs' own state.
---@param endpoint string
---@param words string[]
---@param opts? ProcessOptions
---@return ProcessResult
function M.dockrun(endpoint, words, opts)
  return process.run({ "--endpoint", endpoint, "--state-dir", M.state_dir, table.unpack(words) }, opts)
end

--- The containers of a job on the engine, whatever their state.
---@param engine table
---@param name string
---@return table[]
function M.containers(engine, name)
  return assert(engine:container_list { all = true, filters = { label = { "dockrun.job=" .. name } } })
end

return M
