--- What a task may say of its life beside others: order, health, restarts of the unhealthy.

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
    doc = "before the main tasks, once they run, or after they ended" },
  { name = "sidecar", type = "boolean", default = false, doc = "it runs beside the main tasks, and ends with them" },
}

---@type SchemaRow[]
M.check_restart = {
  { name = "limit", type = "integer", check = validators.range(0), default = 0, doc = "failures in a row before a restart; 0 for never" },
  { name = "grace", type = "duration", default = 1, doc = "after a start, failures do not count for so long" },
  { name = "ignore_warnings", type = "any", unused = true, doc = "Nomad's; kept, not used on a single host" },
}

---@type SchemaRow[]
M.check = {
  { name = "name", type = "string", doc = "what messages call it; its type where left out" },
  { name = "type", type = "string", required = true, values = { "http", "tcp", "exec", "script", "lua" },
    doc = "how it looks: a request, a connection, a command in the container (script: the same), a function" },
  { name = "port", type = "label", doc = "http, tcp: the label of the task's port; left out, its only one" },
  { name = "path", type = "string", default = "/", doc = "http: what is asked for; a status below 400 passes" },
  { name = "method", type = "string", default = "GET", doc = "http" },
  { name = "command", type = "string", check = validators.not_blank, doc = "exec: exit code 0 passes" },
  { name = "args", type = "list", of = "string", doc = "exec: of the command" },
  { name = "run", type = "call", doc = "lua: a function of the task; false, or an error, fails" },
  { name = "interval", type = "duration", check = positive, default = 10, doc = "from the end of one look to the next" },
  { name = "timeout", type = "duration", check = positive, default = 2, doc = "that one look may take" },
  { name = "success_threshold", type = "integer", check = validators.range(1), default = 1, doc = "passes in a row that make it healthy" },
  { name = "failure_threshold", type = "integer", check = validators.range(1), default = 1,
    doc = "failures in a row that make it unhealthy" },
  { name = "check_restart", type = "block", rows = M.check_restart, doc = "whether the unhealthy is restarted" },
}

---@type SchemaRow[]
M.update = {
  { name = "max_parallel", type = "integer", check = validators.range(0), default = 1,
    doc = "allocations that are replaced at a time; 0: all at once, as if there were no such block" },
  { name = "min_healthy_time", type = "duration", default = 10, doc = "that a new one must be healthy in a row" },
  { name = "healthy_deadline", type = "duration", check = positive, default = 300, doc = "until it must be" },
  { name = "auto_revert", type = "boolean", default = false, doc = "make the whole job again what it was where its update fails" },
}

---@type SchemaRow[]
M.task = {
  { name = "lifecycle", type = "block", rows = M.lifecycle, doc = "left out, it is a main task" },
  { name = "leader", type = "boolean", default = false, doc = "the others of its group end with it" },
  { name = "depends_on", type = "map", of = "dependency", doc = "task = started, healthy or completed: what it waits for" },
  { name = "checks", also = "check", type = "blocks", rows = M.check, default = {}, doc = "what tells that it is healthy" },
  { name = "shutdown_delay", type = "duration", default = 0, doc = "the wait before it is asked to end" },
}

return M
