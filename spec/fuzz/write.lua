--- Writes a job of model.lua in each language of job files, in one of many equivalent forms.

local M = {}

local function is_block(value) return type(value) == "table" and value.items ~= nil end

-- The items of a block by key, in the order of their first.
local function by_key(block)
  local keys, groups = {}, {}
  for _, item in ipairs(block.items) do
    if not groups[item.key] then
      keys[#keys + 1] = item.key
      groups[item.key] = {}
    end
    table.insert(groups[item.key], item)
  end
  return keys, groups
end

local splittable = { meta = true, env = true, port_map = true }

-- A map may be written as several blocks.
local function split(r, items)
  local item = items[1]
  if #items ~= 1 or not splittable[item.key] or item.label or item.exact then return items end
  if not is_block(item.value) or #item.value.items < 2 or not r:one_in(3) then return items end
  local at, first, rest = r:int(1, #item.value.items - 1), {}, {}
  for i, one in ipairs(item.value.items) do table.insert(i <= at and first or rest, one) end
  return { { key = item.key, value = { items = first } }, { key = item.key, value = { items = rest } } }
end

local named = { job = true, group = true, task = true }

-- A block may hold its label as its name.
local function unlabelled(r, item)
  if not item.label or not named[item.key] or not is_block(item.value) or not r:one_in(5) then return item end
  local items = { { key = "name", value = item.label }, table.unpack(item.value.items) }
  for i = 2, #items do
    if items[i].key == "name" then return item end
  end
  return { key = item.key, value = { items = items } }
end

-- The scalar of a value, sometimes quoted if that means the same.
local function scalar_of(r, value)
  if type(value) == "table" and value.loose ~= nil then return r:one_in(2) and tostring(value.loose) or value.loose end
  return value
end

local function each_character(text, write)
  return (text:gsub(utf8.charpattern, function(character) return write(character, utf8.codepoint(character)) end))
end

-- ---- JSON ---------------------------------------------------------------------------------------

local Json = {}
Json.__index = Json

local json_escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["\b"] = "\\b", ["\f"] = "\\f" }

local function utf16(code)
  if code < 0x10000 then return ("\\u%04x"):format(code) end
  return ("\\u%04x\\u%04x"):format(0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff))
end

function Json:string(text)
  return '"' .. each_character(text, function(character, code)
    if code < 32 or code == 127 or self.r:one_in(30) then return utf16(code) end
    return json_escapes[character] or character
  end) .. '"'
end

function Json:blank() return self.r:pick { "", "", "", " ", "\n", "\t", "  \r\n" } end

function Json:scalar(value)
  if type(value) == "string" then return self:string(value) end
  if math.type(value) == "integer" then return ("%d"):format(value) .. self.r:pick { "", "", "", ".0", "e0" } end
  return type(value) == "number" and ("%.14g"):format(value) or tostring(value)
end

function Json:sequence(open, parts, close)
  return open .. self:blank() .. table.concat(parts, self:blank() .. "," .. self:blank()) .. self:blank() .. close
end

function Json:list(values)
  local parts = {}
  for i, value in ipairs(values) do parts[i] = self:value(value) end
  return self:sequence("[", parts, "]")
end

function Json:pair(key, text) return self:string(key) .. self:blank() .. ":" .. self:blank() .. text end

function Json:item(item)
  item = unlabelled(self.r, item)
  local text = self:value(item.value)
  return item.label and self:sequence("{", { self:pair(item.label, text) }, "}") or text
end

function Json:block(block)
  local parts, keys, groups = {}, by_key(block)
  for _, key in ipairs(keys) do
    local texts, items = {}, split(self.r, groups[key])
    for i, item in ipairs(items) do texts[i] = self:item(item) end
    local listed = #items > 1 or is_block(items[1].value) and not items[1].exact and self.r:one_in(3)
    parts[#parts + 1] = self:pair(key, listed and self:sequence("[", texts, "]") or texts[1])
  end
  return self:sequence("{", parts, "}")
end

function Json:value(value)
  if is_block(value) then return self:block(value) end
  if type(value) == "table" and value.list then return self:list(value.list) end
  return self:scalar(scalar_of(self.r, value))
end

-- ---- Lua ----------------------------------------------------------------------------------------

local Lua = setmetatable({}, { __index = Json })
Lua.__index = Lua

function Lua:string(text)
  local level = ("="):rep(self.r:int(0, 2))
  if self.r:one_in(4) and not text:find "[\r\n]" and not (text .. "]"):find("]" .. level .. "]", 1, true) then
    return ("[%s[%s]%s]"):format(level, text, level)
  end
  return (("%q"):format(text):gsub("\\\n", "\\n"):gsub("\r", "\\r"))
end

function Lua:blank() return self.r:pick { "", " ", "\n", " --[[ x ]] ", " -- \"]]\n" } end

function Lua:scalar(value)
  if type(value) == "string" then return self:string(value) end
  if math.type(value) == "integer" then return value >= 0 and self.r:one_in(4) and ("0x%x"):format(value) or ("%d"):format(value) end
  return tostring(value)
end

function Lua:sequence(_, parts) return Json.sequence(self, "{", parts, self.r:pick { "}", ",}" }:sub(#parts == 0 and -1 or 1)) end

function Lua:pair(key, text)
  if key:find "^%l[%w_]*$" and key:find "%d" and self.r:one_in(2) then return key .. " = " .. text end  -- no keyword has a digit
  return "[ " .. self:string(key) .. " ] = " .. text
end

-- `made` by the builder itself: a plain table that holds only children would be a list of them.
function Lua:block(block, made)
  local built, keyed, children = self.r:one_in(2), { items = {} }, {}
  for _, item in ipairs(block.items) do made = made or not (named[item.key] and item.label and is_block(item.value)) end
  built = built and made
  for _, item in ipairs(block.items) do
    local child = built and named[item.key] and item.label and is_block(item.value)
    table.insert(child and children or keyed.items, item)
  end
  local text = Json.block(self, keyed)
  if #children == 0 then return text end
  local parts = {}
  for i, item in ipairs(children) do parts[i] = ("%s %q %s"):format(item.key, item.label, self:block(item.value, true)) end
  return (text:gsub(",?}$", "") .. (#keyed.items > 0 and "," or "") .. table.concat(parts, ",") .. "}")
end

-- ---- HCL ----------------------------------------------------------------------------------------

local Hcl = setmetatable({}, { __index = Json })
Hcl.__index = Hcl

local hcl_escapes = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["\a"] = "\\a", ["\v"] = "\\v", ["\0"] = "\\000",
}

local function heredoc(text)
  if text:find "\r" or not text:find "\n$" or ("\n" .. text):find "\n[ \t]*EOF[ \t]*\n" then return nil end
  return "<<EOF\n" .. text .. "EOF\n"
end

function Hcl:characters(text)
  local before
  return each_character(text, function(character, code)
    local opens = before == "$" and character == "{"
    before = character
    if opens then return "\\x7b" end  -- otherwise the text would have to close it
    if code ~= 0x24 and self.r:one_in(30) then
      return code < 128 and self.r:pick { ("\\x%02X"):format(code), ("\\%03o"):format(code) }
        or code > 0xffff and self.r:one_in(2) and ("\\U%08x"):format(code) or utf16(code)
    end
    return hcl_escapes[character] or character
  end)
end

function Hcl:string(text, at_end)
  if at_end and self.r:one_in(2) and heredoc(text) then return heredoc(text) end
  local parts, at = {}, 1
  for from, verbatim, after in text:gmatch "()(%${[^{}\r]*})()" do
    parts[#parts + 1] = self:characters(text:sub(at, from - 1)) .. verbatim
    at = after
  end
  return '"' .. table.concat(parts) .. self:characters(text:sub(at)) .. '"'
end

function Hcl:blank()
  return self.r:pick { "", " ", "\n", "\t", "\r\n", " # }\n", " // \"\n", "/* { */", " /* é\n*/ " }
end

function Hcl:scalar(value)
  if type(value) == "string" then return self:string(value, true) end
  if math.type(value) == "integer" and value >= 0 then return self.r:pick { "%d", "%d", "0x%x", "0%o", "%de0" }:format(value) end
  return tostring(value)
end

function Hcl:key(key)
  if key:find "^[%a_][%w_.-]*$" and not self.r:one_in(5) then return key end
  return self:string(key)
end

function Hcl:list(values)
  local parts = {}
  for i, value in ipairs(values) do parts[i] = self:value(value) end
  local text = self:sequence("[", parts, "]")
  return #parts > 0 and self.r:one_in(3) and text:sub(1, -2) .. ", ]" or text
end

-- An item with its key: key = value, key { … }, key "label" { … } or key { label { … } }.
function Hcl:item(item)
  item = unlabelled(self.r, item)
  local key, text = self:key(item.key), self:value(item.value)
  local equals = not is_block(item.value) and "=" or self.r:pick { "=", "" }
  if not item.label then return key .. " " .. equals .. self:blank() .. text end
  if is_block(item.value) and self.r:one_in(2) then return key .. " " .. self:key(item.label) .. self:blank() .. text end
  return ("%s %s { %s %s %s }"):format(key, self.r:pick { "=", "" }, self:key(item.label), equals, text)
end

function Hcl:block(block)
  local parts, keys, groups = {}, by_key(block)
  for _, key in ipairs(keys) do
    local items = split(self.r, groups[key])
    local blocks = true
    for _, item in ipairs(items) do blocks = blocks and is_block(item.value) and not item.exact end
    if blocks and self.r:one_in(4) then
      local texts = {}
      for i, item in ipairs(items) do
        texts[i] = item.label and ("{ %s = %s }"):format(self:key(item.label), self:value(item.value)) or self:value(item.value)
      end
      parts[#parts + 1] = ("%s = %s"):format(self:key(key), self:sequence("[", texts, "]"))
    else
      for _, item in ipairs(items) do parts[#parts + 1] = self:item(item) end
    end
  end
  local text = { "{" }
  for _, part in ipairs(parts) do
    text[#text + 1] = part
    text[#text + 1] = self.r:pick { "\n", " ", ",", " , ", "\n\n" } .. self:blank()
  end
  return table.concat(text, " ") .. "}"
end

---@type table<string, fun(r: Random, job: FuzzItem): string>
M.formats = {
  json = function(r, job) return setmetatable({ r = r }, Json):block { items = { job } } end,
  lua = function(r, job)
    local writer = setmetatable({ r = r }, Lua)
    local built = job.label and is_block(job.value) and r:one_in(2)
    if built then return ("return job %q %s"):format(job.label, writer:block(job.value, true)) end
    return "return " .. writer:block { items = { { key = job.key, label = job.label, value = job.value, exact = true } } }
  end,
  hcl = function(r, job) return setmetatable({ r = r }, Hcl):block { items = { job } }:sub(2, -2) end,
}

return M
