-- What goes wrong in a world, by its seed: calls, events, the engine, the process itself.
local M = {}

---@class Faults
---@field random fun(n?: integer): number
---@field rates table<string, number>  chances, from 0 to 1
---@field quiet boolean                nothing goes wrong any more: the world is to come to rest
local Faults = {}
Faults.__index = Faults

--- Each world has some kinds of faults, and not others: a world with all of them hides what each alone does.
---@param random fun(n?: integer): number
---@return Faults
function M.new(random)
  local rates = {}
  for _, kind in ipairs { "lost before", "lost after", "error", "drop", "delay", "twice" } do
    rates[kind] = random(3) == 1 and random() * 0.15 or 0
  end
  return setmetatable({ random = random, rates = rates, quiet = false }, Faults)
end

function Faults:happens(kind) return not self.quiet and self.rates[kind] > 0 and self.random() < self.rates[kind] end

--- Seconds that a message takes.
function Faults:latency() return 0.0005 + self.random() * 0.004 end

---@return "lost before"|"lost after"|"error"|nil
function Faults:of_call()
  for _, kind in ipairs { "lost before", "lost after", "error" } do
    if self:happens(kind) then return kind end
  end
end

---@return integer times  that an event arrives
---@return number delay   seconds; other events overtake it
function Faults:of_event()
  if self:happens "drop" then return 0, 0 end
  return self:happens "twice" and 2 or 1, self:happens "delay" and self.random() * 3 or 0
end

return M
