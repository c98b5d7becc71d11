--- The states of a task and the transitions between them. Each arrow shows which causes may take it:
--- o order of its group, t the task's own work, e the engine, p the restart policy, h health, u the user (or its group,
--- its leader, an update), r recovery.
---
---                     o         t           t            t            t           h
---          received ────► setup ──► pulling ──► creating ──► starting ──► running ◄──► healthy
---            │ │            ▲         ▲  │           │        │   │        │    ▲  h      ▲ h
---            │ │ r          └─────────┼──┼───────────┼────────┘ t │        └──► unhealthy◄┘
---            │ └─► running,   a port  │  │ p         │ p    lost  │ p      h
---            │     exited,            │  ▼           ▼            ▼        running, healthy, unhealthy ──u,h─► stopping
---            │     waiting            └─────────── waiting ◄───────┐               │ e                            │ e
---            │                        p               │            │ p             ▼                              │
---            │                                        │            └──────────── exited ◄─────────────────────────┘
---            ▼ o,t,u,r                                ▼ t,u                        │ p,u
---          cleanup ◄──── setup, pulling, creating, starting (t,u) ◄────────────────┘
---            │ t
---            ▼
---          dead, or failed
local M = {}

--- Every transition: from, to, and its possible causes.
---@type { [1]: string, [2]: string, by: string }[]
M.list = {
  { "received", "setup", by = "order" },
  { "received", "running", by = "recovery" },
  { "received", "exited", by = "recovery" },
  { "received", "waiting", by = "recovery" },
  { "received", "cleanup", by = "order task user recovery" },
  { "setup", "pulling", by = "task" },
  { "setup", "cleanup", by = "task user" },
  { "pulling", "creating", by = "task" },
  { "pulling", "waiting", by = "policy" },
  { "pulling", "cleanup", by = "task user" },
  { "creating", "starting", by = "task" },
  { "creating", "waiting", by = "policy" },
  { "creating", "cleanup", by = "task user" },
  { "starting", "running", by = "task" },
  { "starting", "setup", by = "task" },
  { "starting", "waiting", by = "policy" },
  { "starting", "cleanup", by = "task user" },
  { "running", "healthy", by = "health" },
  { "running", "unhealthy", by = "health" },
  { "healthy", "unhealthy", by = "health" },
  { "unhealthy", "healthy", by = "health" },
  { "running", "stopping", by = "health user" },
  { "healthy", "stopping", by = "health user" },
  { "unhealthy", "stopping", by = "health user" },
  { "running", "exited", by = "engine" },
  { "healthy", "exited", by = "engine" },
  { "unhealthy", "exited", by = "engine" },
  { "stopping", "exited", by = "engine" },
  { "exited", "waiting", by = "policy" },
  { "exited", "cleanup", by = "policy user" },
  { "waiting", "pulling", by = "policy" },
  { "waiting", "cleanup", by = "task user" },
  { "cleanup", "dead", by = "task" },
  { "cleanup", "failed", by = "task" },
}

local allowed = {}
for _, row in ipairs(M.list) do
  allowed[row[1]] = allowed[row[1]] or {}
  local causes = {}
  for cause in row.by:gmatch "%a+" do causes[cause] = true end
  allowed[row[1]][row[2]] = causes
end

--- Whether a task may change its state.
---@param from string
---@param to string
---@param cause string  of M.list
---@return boolean
function M.allows(from, to, cause)
  local causes = allowed[from] and allowed[from][to]
  return causes ~= nil and causes[cause] == true
end

return M
