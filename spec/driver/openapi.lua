--- What the Engine API's own specification says about a request: does the endpoint exist, are the query and the body right.
-- Reads the Swagger 2.0 documents in spec/docker-api.
local json = require "dockrun.core.json"

local M = {}

--- The versions there is a document of.
M.versions = { "1.41", "1.44", "1.55" }

M.folder = "spec/docker-api/"

---@class openapi.Operation
---@field method string                       "POST"
---@field path string                         the template: "/containers/{id}/stop"
---@field path_params string[]                names in the path, in its order
---@field query table<string, table>          query parameters by name, as in the document
---@field headers table<string, table>        request headers by name, as in the document
---@field body? table                         the body parameter: {name, required, schema}
---@field consumes string[]
---@field produces string[]
---@field responses table<string, table>      by status: "200"

---@class openapi.Document
---@field spec table                          the decoded document
local Document = {}
Document.__index = Document

-- Names of images have slashes of their own; every other path parameter is one segment.
local function takes_slashes(template)
  return template:find "^/images/" or template:find "^/distribution/" or template:find "^/plugins/"
end

local function operation(method, template, raw)
  local op = {
    method = method:upper(), path = template, path_params = {}, query = {}, headers = {},
    consumes = raw.consumes or {}, produces = raw.produces or {}, responses = raw.responses,
  }
  for name in template:gmatch "{(.-)}" do op.path_params[#op.path_params + 1] = name end
  for _, param in ipairs(raw.parameters or {}) do
    if param["in"] == "query" then op.query[param.name] = param end
    if param["in"] == "header" then op.headers[param.name] = param end
    if param["in"] == "body" then op.body = param end
  end
  return op
end

--- A document from its decoded JSON.
---@param spec table
---@return openapi.Document
function M.document(spec)
  local self = setmetatable({ spec = spec, flat = {}, routes = {}, by_template = {} }, Document)
  for template, methods in pairs(spec.paths) do
    local pattern = template:gsub("[%-%.%+]", "%%%0"):gsub("{.-}", takes_slashes(template) and "(.+)" or "([^/]+)")
    local route = { pattern = "^" .. pattern .. "$", fixed = #template:gsub("{.-}", ""), operations = {} }
    for method, raw in pairs(methods) do route.operations[method:upper()] = operation(method, template, raw) end
    self.routes[#self.routes + 1] = route
    self.by_template[template] = route
  end
  -- The more of a path a template spells out, the more it is meant: /images/json is no image's name.
  table.sort(self.routes, function(a, b)
    if a.fixed ~= b.fixed then return a.fixed > b.fixed end
    return a.pattern < b.pattern
  end)
  return self
end

local loaded = {}

--- The document of an API version.
---@param version string   one of `versions`
---@return openapi.Document document
function M.load(version)
  if loaded[version] then return loaded[version] end
  local file <close> = assert(io.open(("%sv%s.json"):format(M.folder, version), "rb"))
  loaded[version] = M.document(assert(json.decode(file:read "a")))
  return loaded[version]
end

--- The operation of a path as the document writes it.
---@param method string
---@param template string   "/containers/{id}/stop"
---@return openapi.Operation?
function Document:operation(method, template)
  local route = self.by_template[template]
  return route and route.operations[method:upper()]
end

local function unescape(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- "a=1&b=x&b=y" -> { a = "1", b = { "x", "y" } }
local function parse_query(text)
  local query = {}
  for name, value in text:gmatch "([^&=]+)=?([^&]*)" do
    name, value = unescape(name), unescape((value:gsub("%+", " ")))
    local before = query[name]
    if before == nil then
      query[name] = value
    elseif type(before) == "table" then
      before[#before + 1] = value
    else
      query[name] = { before, value }
    end
  end
  return query
end

--- The operation that a request is for.
---@param method string
---@param target string     "/containers/abc/stop", also with the version before it and the query behind it
---@return openapi.Operation? op
---@return table<string, string>? path_params   by name, unescaped
---@return table<string, string|string[]>? query
function Document:match(method, target)
  local path, query = target:gsub("^/v1%.%d+/", "/"):match "^([^?]*)%??(.*)$"
  for _, route in ipairs(self.routes) do
    local op = route.operations[method:upper()]
    local found = op and table.pack(path:match(route.pattern))
    if found and found[1] then
      local params = {}
      for i, name in ipairs(op.path_params) do params[name] = unescape(found[i]) end
      return op, params, parse_query(query)
    end
  end
end

-- ---- values against schemas ------------------------------------------------------------------------

local function is_list(value)
  local count = 0
  for key in pairs(value) do
    if math.type(key) ~= "integer" then return false end
    count = count + 1
  end
  return count == #value
end

-- A decoded table that is empty may be an object or a list: JSON's difference between them is lost.
local is_of_type = {
  string = function(v) return type(v) == "string" end,
  boolean = function(v) return type(v) == "boolean" end,
  integer = function(v) return math.type(v) == "integer" end,
  number = function(v) return type(v) == "number" end,
  array = function(v) return type(v) == "table" and is_list(v) end,
  object = function(v) return type(v) == "table" and (next(v) == nil or not is_list(v)) end,
}

-- Formats that bound an integer more than Lua's own 64 bits do.
local ranges = { uint8 = { 0, 0xff }, uint16 = { 0, 0xffff }, uint32 = { 0, 0xffffffff }, uint64 = { 0, math.maxinteger } }

-- A container's Cmd and Entrypoint are lists by their schema; only the text beside it says that one string will do.
local function is_string_or_list(schema, value)
  return schema.type == "array" and type(value) == "string" and (schema.description or ""):find "string or an array"
end

-- As a person would write it in a message.
local function show(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) == "table" then return next(value) == nil and "an empty table" or is_list(value) and "a list" or "an object" end
  return tostring(value)
end

-- The documents write "only an empty object" as enum: [{}].
local function is_one_of(value, list)
  for _, allowed in ipairs(list) do
    if allowed == value then return true end
    if type(allowed) == "table" and type(value) == "table" and not next(allowed) and not next(value) then return true end
  end
  return false
end

local function one_of(list)
  local shown = {}
  for i, value in ipairs(list) do shown[i] = show(value) end
  return table.concat(shown, ", ")
end

local function child(path, key)
  if math.type(key) == "integer" then return ("%s[%d]"):format(path, key) end
  if not tostring(key):find "^[%a_][%w_]*$" then return ("%s[%q]"):format(path, key) end
  return path == "" and key or path .. "." .. key
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

local function overlay(into, schema)
  local properties, required = {}, {}
  for _, part in ipairs { into, schema } do
    for name, property in pairs(part.properties or {}) do properties[name] = property end
    for _, name in ipairs(part.required or {}) do required[#required + 1] = name end
  end
  for key, value in pairs(schema) do into[key] = value end
  into.properties = next(properties) and properties or nil
  into.required = required
end

-- One schema without $ref and allOf at its top. Beside a $ref nothing else counts; beside an allOf all does.
function Document:flatten(schema)
  if self.flat[schema] then return self.flat[schema] end
  local flat = {}
  if schema["$ref"] then
    local name = schema["$ref"]:match "^#/definitions/(.+)$"
    flat = self:flatten(assert(self.spec.definitions[name], "the document has no definition " .. schema["$ref"]))
  else
    for _, part in ipairs(schema.allOf or {}) do overlay(flat, self:flatten(part)) end
    overlay(flat, schema)
  end
  self.flat[schema] = flat
  return flat
end

local function check_number(schema, value, path, report)
  local range = ranges[schema.format] or {}
  local least, most = schema.minimum or range[1], schema.maximum or range[2]
  if least and value < least then report(path, ("must be at least %s, not %s"):format(least, value)) end
  if most and value > most then report(path, ("must be at most %s, not %s"):format(most, value)) end
end

function Document:check_list(schema, value, path, report)
  if schema.minItems and #value < schema.minItems then report(path, "must have at least " .. schema.minItems .. " items") end
  if schema.maxItems and #value > schema.maxItems then report(path, "must have at most " .. schema.maxItems .. " items") end
  for i, item in ipairs(value) do self:check(schema.items or {}, item, child(path, i - 1), report) end
end

-- An object whose schema names no member at all may hold anything.
function Document:check_members(schema, value, path, report)
  local properties, others = schema.properties or {}, schema.additionalProperties
  if others == nil then others = not schema.properties end
  for _, name in ipairs(schema.required or {}) do
    if value[name] == nil then report(child(path, name), "is missing") end
  end
  for _, key in ipairs(sorted_keys(value)) do
    if properties[key] or type(others) == "table" then
      self:check(properties[key] or others, value[key], child(path, key), report)
    elseif not others then
      report(child(path, key), "unknown key")
    end
  end
end

function Document:check(schema, value, path, report)
  schema = self:flatten(schema)
  if value == json.null then
    if not schema["x-nullable"] then report(path, "must not be null") end
    return
  end
  local kind = schema.type or (schema.properties or schema.additionalProperties) and "object"
  if not kind or is_string_or_list(schema, value) then return end
  if not is_of_type[kind](value) then return report(path, ("must be of type %s, not %s"):format(kind, show(value))) end
  if schema.enum and not is_one_of(value, schema.enum) then
    return report(path, ("must be one of %s, not %s"):format(one_of(schema.enum), show(value)))
  end
  if type(value) == "number" then check_number(schema, value, path, report) end
  if kind == "array" then self:check_list(schema, value, path, report) end
  if kind == "object" then self:check_members(schema, value, path, report) end
end

--- Holds a decoded JSON body, or the bytes of an archive, against the operation's schema.
---@param op openapi.Operation
---@param value any         nil where there is no body
---@return string[] problems   "HostConfig.Memory: must be of type integer, not "1g""; empty where all is well
function Document:check_body(op, value)
  local problems = {}
  local function report(path, problem)
    problems[#problems + 1] = ("%s: %s"):format(path == "" and "body" or path, problem)
  end
  if value == nil then
    if op.body and op.body.required then report("", "is missing") end
  elseif not op.body then
    report("", ("%s %s takes none"):format(op.method, op.path))
  else
    self:check(op.body.schema, value, "", report)
  end
  return problems
end

-- ---- the query -------------------------------------------------------------------------------------

local boolean_words = { ["true"] = true, ["false"] = true, ["1"] = true, ["0"] = true }

-- On the wire a value is text; before it gets there it may still be what a script wrote. A table stands for its JSON.
local fits_query = {
  string = function(v) return is_of_type.string(v) or is_of_type.number(v) or is_of_type.boolean(v) or type(v) == "table" end,
  boolean = function(v) return is_of_type.boolean(v) or boolean_words[v] ~= nil end,
  integer = function(v) return is_of_type.integer(v) or type(v) == "string" and v:find "^-?%d+$" ~= nil end,
}

local function query_problem(param, value)
  if param.type == "array" then
    local items = type(value) == "table" and is_list(value) and value or { value }
    for _, item in ipairs(items) do
      local problem = query_problem(param.items, item)
      if problem then return problem end
    end
  elseif not fits_query[param.type](value) then
    return ("must be of type %s, not %s"):format(param.type, show(value))
  elseif param.enum and not is_one_of(value, param.enum) then
    return ("must be one of %s, not %s"):format(one_of(param.enum), show(value))
  end
end

--- Holds query parameters, as text or as the values a script gives, against the operation.
---@param op openapi.Operation
---@param query table<string, any>
---@return string[] problems   "t: must be of type integer, not "soon""; empty where all is well
function Document.check_query(_, op, query)
  local problems = {}
  for _, name in ipairs(sorted_keys(query)) do
    local param = op.query[name]
    local problem = not param and ("unknown parameter of %s %s"):format(op.method, op.path) or param and query_problem(param, query[name])
    if problem then problems[#problems + 1] = ("%s: %s"):format(name, problem) end
  end
  for _, name in ipairs(sorted_keys(op.query)) do
    if op.query[name].required and query[name] == nil then problems[#problems + 1] = name .. ": is missing" end
  end
  return problems
end

-- What a call of dockrun.core.docker takes beside the query.
local own_options = { body = true, auth = true, timeout = true, tty = true }

--- What a trace of docker.connect saw, kept: a body is copied as JSON has it, so that a later change does not count.
---@param call { name: string, method: string, path: string, options: table }
---@return { name: string, method: string, path: string, query: table, body: any }
function M.keep(call)
  local kept = { name = call.name, method = call.method, path = call.path, query = {} }
  for key, value in pairs(call.options) do
    if not own_options[key] then kept.query[key] = value end
  end
  local body = call.options.body
  kept.body = type(body) == "table" and json.decode(json.encode(body)) or body
  return kept
end

--- Holds kept calls against a document: its path, its query as written and as sent, its body.
---@param calls { method: string, path: string, query: table, body: any }[]
---@return string[] problems
function Document:check_calls(calls)
  local problems = {}
  for _, call in ipairs(calls) do
    local op, _, sent = self:match(call.method, call.path)
    local found = op and self:check_query(op, call.query) or { "no such endpoint" }
    local function add(list) table.move(list, 1, #list, #found + 1, found) end
    if op then add(self:check_query(op, sent)) end
    if op and (op.body or call.body ~= nil) then
      add(self:check_body(op, (type(call.body) == "function" or type(call.body) == "string") and "" or call.body))
    end
    for _, problem in ipairs(found) do problems[#problems + 1] = ("%s %s: %s"):format(call.method, call.path, problem) end
  end
  return problems
end

return M
