--- Damages a job of model.lua before it is written, or its text afterwards.

local schema = require "dockrun.job.schema"

local M = {}

local function copy(value)
  if type(value) ~= "table" then return value end
  local new = {}
  for key, item in pairs(value) do new[key] = copy(item) end
  return new
end

-- ---- jobs ---------------------------------------------------------------------------------------

-- Every place of a value in a job: { holder, key, item? }.
local function places(item, into)
  local function walk(holder, key, owner)
    into[#into + 1] = { holder = holder, key = key, item = owner }
    local value = holder[key]
    if type(value) ~= "table" then return end
    for i in ipairs(value.list or {}) do walk(value.list, i) end
    for _, one in ipairs(value.items or {}) do walk(one, "value", one) end
  end
  walk(item, "value", item)
  return into
end

local function nested(depth, leaf)
  for _ = 1, depth do leaf = { list = { leaf } } end
  return leaf
end

local junk = {
  function() return 0 end, function() return -1 end, function() return 0.5 end, function() return 1 << 40 end, function() return true end,
  function() return "" end, function() return " " end, function() return "x\0y" end, function() return ("x"):rep(300) end,
  function(r) return r:text() end, function() return { list = {} } end, function() return { list = { 1, "a", { list = {} } } } end,
  function() return { items = {} } end, function(r) return { items = { { key = r:text(2), value = 1 } } } end,
  function(r) return nested(r:pick { 1, 2, 5, 60, 300 }, 1) end,
  function() return { list = { { items = { { key = "name", value = { list = {} } } } } } } end,
}

-- True if a block has one item of this key, so that its value may be anything.
local function alone(block, key)
  local count = 0
  for _, item in ipairs(block.items) do count = count + (item.key == key and 1 or 0) end
  return count == 1
end

local function blocks(item, into)
  for _, place in ipairs(places(item, {})) do
    local value = place.holder[place.key]
    if type(value) == "table" and value.items and #value.items > 0 then into[#into + 1] = value end
  end
  return into
end

--- A job with a few mistakes that every language can still express: no key has two scalars.
---@param r Random
---@param item FuzzItem
---@return FuzzItem
function M.job(r, item)
  item = copy(item)
  for _ = 1, r:int(1, 4) do
    local within = blocks(item, {})
    local block = #within > 0 and r:pick(within)
    local victim, kind = block and r:int(1, #block.items), r:int(1, 6)
    local one = block and block.items[victim]
    if not block then
      return item
    elseif kind == 1 then
      table.remove(block.items, victim)
    elseif kind == 2 and one.label then
      one.label = r:pick { "", " ", "-x", "a b", one.label .. "ü", ("n"):rep(200), r:text(), "name" }
    elseif kind == 3 then
      local key = r:pick { one.key .. "s", (one.key:gsub("^" .. utf8.charpattern, "")), one.key .. "ü", r:text(2), "name", "config" }
      if not alone({ items = { { key = key }, table.unpack(block.items) } }, key) then key = one.key end
      one.key, one.exact = key, true
    elseif kind == 4 and one.label and type(one.value) == "table" then
      table.insert(block.items, copy(one))  -- a name given twice
    elseif kind == 5 and type(one.value) == "table" and one.value.list then
      table.insert(one.value.list, r:int(1, #one.value.list + 1), r:pick(junk)(r))
    elseif alone(block, one.key) then
      one.value, one.label, one.exact = r:pick(junk)(r), nil, true
    end
  end
  return item
end

-- ---- texts --------------------------------------------------------------------------------------

local words = {
  "{", "}", "[", "]", "(", ")", "=", ",", ":", "\"", "'", "\\", "\n", "\r\n", "\0", "\xff", "\xc3", "\u{feff}", "é", "🐳", "#", "//",
  "/*", "*/",
  "--", "--[[", "]]", "${", "$", "<<EOF\n", "<<-EOF\n", "EOF\n", "\nEOF\n", "\\u", "\\ud800", "\\x", "\\q", "0x", "08", "1e999", "-",
  "99999999999999999999", "0.", ".5", "15s", "true", "null", "nil", "return ", "function() end", "local x = ", "error {}", "var.x", "job ",
  "task ", "group ", "job \"x\" {", "name", "../..", "a.b", "-1", "\"\"", "{}", "[]", "[[", "nan", "1/0",
}
for _, rows in ipairs { schema.job, schema.group, schema.task, schema.config, schema.resources } do
  for _, row in ipairs(rows) do words[#words + 1] = row.name end
end

local function replace(text, from, to, by) return text:sub(1, from - 1) .. by .. text:sub(to + 1) end

local function range(r, text, most)
  local from = r:int(1, #text)
  return from, math.min(#text, from + r:int(0, most))
end

local damages = {
  function(r, text) return text:sub(1, r:int(0, #text)) end,
  function(r, text) return text:sub(r:int(1, #text)) end,
  function(r, text)
    local at = r:int(1, #text)
    return replace(text, at, at, string.char(r:int(0, 255)))
  end,
  function(r, text)
    local from, to = range(r, text, 20)
    return replace(text, from, to, "")
  end,
  function(r, text)
    local from, to = range(r, text, 40)
    return replace(text, from, from - 1, text:sub(from, to))
  end,
  function(r, text)
    local from, to = range(r, text, 8)
    return replace(text, from, from - 1, text:sub(from, to):rep(r:pick { 2, 50, 3000 }))
  end,
  function(r, text)
    local from, to = range(r, text, 40)
    local at = r:int(1, #text)
    return replace(text, at, at - 1, text:sub(from, to))
  end,
}

-- Listed several times, because they find the most.
for _ = 1, 4 do
  table.insert(damages, function(r, text)
    local at = r:int(1, #text + 1)
    return replace(text, at, at - 1, r:pick(words))
  end)
  table.insert(damages, function(r, text)
    local from, to = text:find("[%w_]+", r:int(1, #text))
    return from and replace(text, from, to, r:pick(words)) or text
  end)
  table.insert(damages, function(r, text)
    local at = text:find("[%p]", r:int(1, #text))
    return at and replace(text, at, at, r:pick { "", r:pick(words) }) or text
  end)
end

--- A text with a few mistakes.
---@param r Random
---@param text string
---@return string
function M.text(r, text)
  for _ = 1, r:int(1, 4) do
    if text == "" then return text end
    text = r:pick(damages)(r, text)
  end
  return text
end

return M
