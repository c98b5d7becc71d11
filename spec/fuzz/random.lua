--- Random choices that depend on the seed alone, on every machine and in every version.

local M = {}

---@class Random
---@field state integer
local Random = {}
Random.__index = Random

---@param seed integer
---@return Random
function M.new(seed) return setmetatable({ state = seed }, Random) end

-- SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
local function step(self)
  self.state = self.state + 0x9e3779b97f4a7c15
  local z = self.state
  z = (z ~ (z >> 30)) * 0xbf58476d1ce4e5b9
  z = (z ~ (z >> 27)) * 0x94d049bb133111eb
  return z ~ (z >> 31)
end

--- A whole number from `least` to `most`.
function Random:int(least, most) return least + (step(self) >> 1) % (most - least + 1) end

--- True once in `n` times.
function Random:one_in(n) return self:int(1, n) == 1 end

function Random:pick(list) return list[self:int(1, #list)] end

--- A list of `least` to `most` results of `make`.
function Random:some(least, most, make)
  local list = {}
  for i = 1, self:int(least, most) do list[i] = make(i) end
  return list
end

-- Pieces that broke readers before: quotes, ends of comments and texts, interpolations, odd characters.
local pieces = {
  "a", "b7", "x-y", "_", ".", " ", "  ", "\t", "\n", "\r", "\r\n", '"', "'", "\\", "\\n", "\\u00e9", "#", "//", "/*", "*/", "--", "--[[",
  "]]", "]==]", "EOF", "<<EOF\n", "<<-X", "${", "}", "{", "${NOMAD_IP}", '${meta["a b"]}', "$attr.kernel.name", "$", "$$", "$${x}", "%",
  "%s", "%1", "é", "ß", "日本", "🐳", "\u{200b}", "\u{feff}", "\u{a0}", "\u{fffd}", "\u{10ffff}", "\1", "\127", "0", "-1", "0x1f", "007",
  "1e3", "true", "null", ",", "=", "[", "]", ":", "redis:7", "a=b",
}

--- A text without a NUL byte, in UTF-8.
---@param most? integer  pieces: 6
function Random:text(most) return table.concat(self:some(0, most or 6, function() return self:pick(pieces) end)) end

return M
