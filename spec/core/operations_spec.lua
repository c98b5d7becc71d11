local operations = require "dockrun.core.operations"
local openapi = require "spec.driver.openapi"

local function minor(version) return tonumber(version:match "^1%.(%d+)$") end

local function sorted_keys(set)
  local keys = {}
  for key in pairs(set) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

describe("the table of operations", function()
  -- What a script can call, by what it acts upon.
  local actions = {
    [""] = "system_ping version info events df auth",
    container_ = "create list inspect top logs changes stats resize start stop restart kill update rename pause unpause attach "
      .. "wait remove prune export",
    archive_ = "get put head",
    exec_ = "create start inspect resize",
    image_ = "list pull import load save inspect history tag push remove search prune",
    network_ = "list inspect create remove connect disconnect prune",
    volume_ = "list inspect create remove prune",
  }
  for group, names in pairs(actions) do
    for name in names:gmatch "%S+" do
      name = group .. name
      it("has a row for " .. name, function() assert.equal(name, (operations.find(name) or {}).name) end)
    end
  end

  it("is sorted by name, each name once", function()
    for i = 2, #operations do
      assert.is_true(operations[i - 1].name < operations[i].name, operations[i - 1].name .. " before " .. operations[i].name)
    end
  end)

  it("finds every row by its name", function()
    for _, row in ipairs(operations) do assert.same(row, operations.find(row.name)) end
  end)

  it("finds nothing by another name", function()
    for _, name in ipairs { "", "a", "container", "container_stopp", "Version", "zzz" } do assert.is_nil(operations.find(name)) end
  end)

  it("tells a row in words", function()
    assert.same({
      name = "container_stop", method = "POST", path = "/containers/{id}/stop",
      query = { { name = "signal", since = "1.42" }, { name = "t" } }, body = "none", answer = "none", auth = false,
    }, operations.find "container_stop")
    assert.same({
      name = "image_push", method = "POST", path = "/images/{name}/push",
      query = { { name = "tag" }, { name = "platform", since = "1.46" } }, body = "none", answer = "lines", auth = true,
    }, operations.find "image_push")
  end)

  it("pulls and imports by one endpoint, each with its own half of the query", function()
    local function names(row)
      local set = {}
      for _, param in ipairs(operations.find(row).query) do set[param.name] = true end
      return sorted_keys(set)
    end
    assert.same({ "fromImage", "platform", "tag" }, names "image_pull")
    assert.same({ "changes", "fromSrc", "message", "platform", "repo", "tag" }, names "image_import")
  end)
end)

-- ---- against the specification ---------------------------------------------------------------------

local function produces(op, kind)
  for _, produced in ipairs(op.produces) do
    if produced:find(kind, 1, true) then return true end
  end
  return false
end

-- The kind of answer that a document tells. Progress has no schema there, only JSON as its type.
local function told_answer(op)
  local success = op.responses["200"] or op.responses["201"] or op.responses["204"]
  local schema = success.schema
  if (success.headers or {})["X-Docker-Container-Path-Stat"] then return "headers" end
  if produces(op, "raw-stream") then return op.method == "GET" and "frames" or "hijack" end
  if op.method == "GET" and (produces(op, "x-tar") or produces(op, "octet-stream")) then return "bytes" end
  if produces(op, "jsonl") or not schema and produces(op, "application/json") then return "lines" end
  if not schema then return "none" end
  if schema.type ~= "string" then return "json" end
  return schema.format == "binary" and "bytes" or "text"
end

-- Where a document tells less than its prose: one document of a stream, frames as bytes, nothing of the progress.
local understated = {
  container_logs = { bytes = "frames" },
  container_stats = { json = "lines" },
  events = { json = "lines" },
  image_push = { none = "lines" },
}

local function told_body(doc, op)
  if not op.body then return "none" end
  return doc:flatten(op.body.schema).type == "string" and "bytes" or "json"
end

-- Rows with the same method and path share an entry of the document.
local by_path = {}
for _, row in ipairs(operations) do
  local key = row.method .. " " .. row.path
  by_path[key] = by_path[key] or {}
  table.insert(by_path[key], row)
end

for _, version in ipairs(openapi.versions) do
  describe("the table of operations, beside the Engine API " .. version .. ",", function()
    local doc = openapi.load(version)

    for key, rows in pairs(by_path) do
      local method, path = rows[1].method, rows[1].path

      describe("at " .. key, function()
        local op
        setup(function() op = assert(doc:operation(method, path), "the document has no " .. key) end)

        it("has its path parameters", function()
          local declared = {}
          for _, param in ipairs(doc.spec.paths[path][method:lower()].parameters or {}) do
            if param["in"] == "path" then declared[#declared + 1] = param.name end
          end
          assert.same(declared, op.path_params)
        end)

        -- No version has dropped a parameter of these operations yet: one that does will be a difference here.
        it("has its query parameters, all of them and no other", function()
          local known = {}
          for _, row in ipairs(rows) do
            for _, param in ipairs(row.query) do
              if not param.since or minor(param.since) <= minor(version) then known[param.name] = true end
            end
          end
          assert.same(sorted_keys(op.query), sorted_keys(known))
        end)

        it("takes its body", function()
          local kinds, told = {}, told_body(doc, op)
          for _, row in ipairs(rows) do kinds[row.body] = true end
          assert.is_true(kinds[told], "the document tells " .. told)
          kinds[told] = nil
          if told ~= "none" and not op.body.required and #rows > 1 then kinds.none = nil end
          assert.same({}, kinds)
        end)

        it("takes registry credentials where it does", function()
          local auth = false
          for _, row in ipairs(rows) do auth = auth or row.auth end
          assert.equal(op.headers["X-Registry-Auth"] ~= nil, auth)
        end)

        it("gives its answer", function()
          for _, row in ipairs(rows) do
            local told = told_answer(op)
            assert.equal((understated[row.name] or {})[told] or told, row.answer)
          end
        end)
      end)
    end
  end)
end

describe("a query parameter's first version", function()
  local file <close> = assert(io.open(openapi.folder .. "CHANGELOG.md"))
  local changes, section = {}, nil
  for line in file:lines() do
    section = line:match "^## [vV](1%.%d+) API changes" or section
    if section then
      -- One paragraph per change.
      changes[section] = (changes[section] or "") .. (line:find "^%s*[*-] " and "\n" or " ") .. line
    end
  end

  local function announced(row, param)
    for change in (changes[param.since] or ""):gmatch "[^\n]+" do
      local about = change:find(row.method .. " " .. row.path:match "^/[^/]+", 1, true)
      if about and change:find("`%??" .. param.name:gsub("%-", "%%-") .. "[`=]") then return true end
    end
    return false
  end

  for _, row in ipairs(operations) do
    for _, param in ipairs(row.query) do
      if param.since then
        it(("of %s, %s, is %s by the changelog"):format(row.name, param.name, param.since), function()
          assert.is_true(announced(row, param))
        end)
      end
    end
  end
end)
