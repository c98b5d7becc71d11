-- The faults between a process and the engine, by a world's seed.
local M = {}

-- Faults of calls, in the order in which they are tried; of events; of pulls.
local CALLS = { "lost before", "lost after", "error before", "error after", "silent", "slow" }
local KINDS = { "drop", "twice", "late", "stalled pull", "broken pull", table.unpack(CALLS) }

---@class Faults
---@field random fun(n?: integer): number
---@field rates table<string, number>  chances, from 0 to 1
---@field quiet boolean                no fault from now on
---@field count integer                faults until now
local Faults = {}
Faults.__index = Faults
Faults.SLOWEST = 8  -- seconds that a slow call takes to reach the engine, at most

--- Each world has some kinds of faults only: a world with all of them hides the effect of each.
---@param random fun(n?: integer): number
---@param severity number  0: no faults
---@return Faults
function M.new(random, severity)
  local rates = {}
  for _, kind in ipairs(KINDS) do rates[kind] = random(3) == 1 and random() * severity or 0 end
  rates.silent = rates.silent / 4  -- each takes a whole time-out
  return setmetatable({ random = random, rates = rates, quiet = severity == 0, count = 0 }, Faults)
end

---@param kind string
---@return boolean
function Faults:happens(kind)
  local happens = not self.quiet and self.rates[kind] > 0 and self.random() < self.rates[kind]
  if happens then self.count = self.count + 1 end
  return happens
end

--- Seconds that a message takes.
---@return number
function Faults:latency() return 0.0005 + self.random() * 0.004 end

---@return string? kind  of CALLS
function Faults:of_call()
  for _, kind in ipairs(CALLS) do
    if self:happens(kind) then return kind end
  end
end

--- The fault of one event.
---@return integer times  that it arrives
---@return number? late   seconds by which others overtake it
function Faults:of_event()
  if self:happens "drop" then return 0 end
  return self:happens "twice" and 2 or 1, self:happens "late" and self.random() * 3 or nil
end

return M
