--- Decides whether a task restarts after its end, and when: Nomad's restart policy
--- (https://developer.hashicorp.com/nomad/docs/job-specification/restart), counted as Nomad counts.

local M = {}

---@class RestartPolicy
---@field attempts integer   restarts within the interval
---@field interval number    seconds
---@field delay number       seconds before a restart; up to a quarter more, so that many tasks do not come back at once
---@field mode "delay"|"fail" once the attempts are used up: wait for the interval's end, or give up

local JITTER = 0.25

---@class RestartDecision     a `restart` hook may change it
---@field restart boolean
---@field delay number        seconds
---@field failed boolean      without a restart: whether the task counts as failed
---@field reason string
---@field attempt integer     of this interval

---@class Restarts
---@field policy RestartPolicy
---@field on_success boolean  also restart after exit code 0: a service has no end
---@field now fun(): number
---@field random fun(): number  from [0, 1)
---@field count integer       attempts in this interval
---@field since number        when the interval began
---@field total integer       restarts of all intervals
local Restarts = {}
Restarts.__index = Restarts

---@param policy RestartPolicy
---@param opts { on_success: boolean, now: (fun(): number), random: (fun(): number) }
---@return Restarts
function M.new(policy, opts)
  return setmetatable({
    policy = policy, on_success = opts.on_success, now = opts.now, random = opts.random, count = 0, since = opts.now(), total = 0,
  }, Restarts)
end

local function no(reason, failed, attempt)
  return { restart = false, delay = 0, failed = failed, reason = reason, attempt = attempt }
end

--- Decides what to do after an end, and counts it.
---@param ended { success?: boolean, unrecoverable?: boolean, awaited?: boolean }  unrecoverable: it never started, and
---  never will; awaited: its allocation is being stopped and waits for its end
---@return RestartDecision
function Restarts:decide(ended)
  local policy, now = self.policy, self.now()
  if policy.attempts == 0 then
    if ended.success and not self.on_success then return no("the task is done", false, 0) end
    return no("its restart policy allows no restart", true, 0)
  end
  if not ended.awaited and now > self.since + policy.interval then self.count, self.since = 0, now end
  self.count = self.count + 1
  if ended.unrecoverable then return no("it cannot start", true, self.count) end
  if ended.success and not self.on_success then return no("the task is done", false, self.count) end
  if self.count <= policy.attempts then
    local delay = policy.delay * (1 + JITTER * self.random())
    return { restart = true, delay = delay, failed = false, reason = "within its restart policy", attempt = self.count }
  end
  if policy.mode == "fail" then
    return no(("more than %d restarts in %g s, and the mode is fail"):format(policy.attempts, policy.interval), true, self.count)
  end
  if ended.awaited then return no(("more than %d restarts in %g s"):format(policy.attempts, policy.interval), true, self.count) end
  return {
    restart = true, delay = self.since + policy.interval - now, failed = false, attempt = self.count,
    reason = ("more than %d restarts in %g s; waiting for the interval's end"):format(policy.attempts, policy.interval),
  }
end

--- Continues the counts of another process.
---@param record { restarts?: integer, restart_count?: integer, restart_since?: number }
---@param since number  restart_since, on this process's clock
function Restarts:restore(record, since)
  self.total, self.count, self.since = record.restarts or 0, record.restart_count or 0, since
end

return M
