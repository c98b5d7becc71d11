--- Rows about the life of a task beside others: order, health checks, restarts, updates; and the names of the hooks.

local validators = require "dockrun.job.validators"

local M = {}

local function positive(value)
  if value <= 0 then return "must be more than 0" end
end

--- Every transition that may have a hook, in the order of a task's life. dockrun.hooks runs them.
M.hooks = {
  "received", "setup", "ports", "pull", "pulled", "create", "created", "prestart", "started", "healthy", "unhealthy",
  "oom", "exited", "restart", "kill", "killed", "stopped", "cleanup", "failed",
}

---@type SchemaRow[]
M.lifecycle = {
  { name = "hook", type = "string", required = true, values = { "prestart", "poststart", "poststop" },
    doc = "run before the main tasks, while they run, or after they ended" },
  { name = "sidecar", type = "boolean", default = false, doc = "run beside the main tasks, and end with them" },
}

---@type SchemaRow[]
M.check_restart = {
  { name = "limit", type = "integer", check = validators.range(0), default = 0,
    doc = "failures in a row before a restart; 0: never restart" },
  { name = "grace", type = "duration", default = 1, doc = "time after a start in which failures do not count" },
  { name = "ignore_warnings", type = "any", unused = true, doc = "Nomad's; kept, not used on a single host" },
}

---@type SchemaRow[]
M.check = {
  { name = "name", type = "string", doc = "name in messages; left out, its type" },
  { name = "type", type = "string", required = true, values = { "http", "tcp", "exec", "script", "lua" },
    doc = "a request, a connection, a command in the container (script: the same) or a function" },
  { name = "port", type = "label", doc = "http, tcp: the label of the task's port; left out, its only one" },
  { name = "path", type = "string", default = "/", doc = "http: path of the request; a status below 400 passes" },
  { name = "method", type = "string", default = "GET", doc = "http: method of the request" },
  { name = "command", type = "string", check = validators.not_blank, doc = "exec: the command; exit code 0 passes" },
  { name = "args", type = "list", of = "string", doc = "exec: arguments of the command" },
  { name = "run", type = "call", doc = "lua: a function that gets the task; false or an error fails" },
  { name = "interval", type = "duration", check = positive, default = 10, doc = "time from the end of a check to the next one" },
  { name = "timeout", type = "duration", check = positive, default = 2, doc = "time that a check may take" },
  { name = "success_threshold", type = "integer", check = validators.range(1), default = 1,
    doc = "passes in a row until the task is healthy" },
  { name = "failure_threshold", type = "integer", check = validators.range(1), default = 1,
    doc = "failures in a row until the task is unhealthy" },
  { name = "check_restart", type = "block", rows = M.check_restart, doc = "when to restart an unhealthy task" },
}

---@type SchemaRow[]
M.update = {
  { name = "max_parallel", type = "integer", check = validators.range(0), default = 1,
    doc = "allocations to replace at a time; 0: all at once, as without this block" },
  { name = "min_healthy_time", type = "duration", default = 10, doc = "time that a new allocation must stay healthy" },
  { name = "healthy_deadline", type = "duration", check = positive, default = 300,
    doc = "time in which a new allocation must become healthy" },
  { name = "auto_revert", type = "boolean", default = false, doc = "if the update fails, go back to the previous version of the job" },
}

---@type SchemaRow[]
M.task = {
  { name = "lifecycle", type = "block", rows = M.lifecycle, doc = "when to run the task; left out, it is a main task" },
  { name = "leader", type = "boolean", default = false, doc = "stop the other tasks of the group when this one ends" },
  { name = "depends_on", type = "map", of = "dependency", doc = "tasks to wait for: NAME = started, healthy or completed" },
  { name = "checks", also = "check", type = "blocks", rows = M.check, default = {}, doc = "health checks" },
  { name = "shutdown_delay", type = "duration", default = 0, doc = "wait before the task is asked to stop" },
}

return M
