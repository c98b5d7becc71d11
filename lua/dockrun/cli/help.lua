local options = require "dockrun.options"
local output = require "dockrun.output"
local schema = require "dockrun.job.schema"

-- ---- options of the agent ---------------------------------------------------------------------

local function to_text(value)
  if type(value) == "table" then return table.concat(value, ", ") end
  return tostring(value)
end

-- Breaks a text into lines of at most `width` characters.
local function wrap(text, width)
  local lines = {}
  for word in text:gmatch "%S+" do
    local longer = lines[#lines] and lines[#lines] .. " " .. word
    if longer and utf8.len(longer) <= width then lines[#lines] = longer else lines[#lines + 1] = word end
  end
  return lines
end

local function option_rows()
  local rows = {}
  for i, row in ipairs(options.rows) do
    rows[i] = { name = row.name, type = row.type, default = options.default(row), doc = row.doc }
  end
  return rows
end

-- ---- options of a job -------------------------------------------------------------------------

-- Where a key belongs, and the prefix of its name on the page. The first that matches wins.
local levels = {
  { title = "config: the container", path = "job.group.task.config.", name = "config." },
  { title = "resources: what it may use", path = "job.group.task.resources.", name = "resources." },
  { title = "Task", path = "job.group.task.", name = "task." },
  { title = "Group", path = "job.group.", name = "group." },
  { title = "Job", path = "job.", name = "job." },
}

local function level_of(path)
  if path:find "^job%.task%." then return nil end  -- a group of its own name
  for _, level in ipairs(levels) do
    if path:sub(1, #level.path) == level.path then return level end
  end
end

-- Every key of a job file, as { name = "config.mount.type", … }, ordered by level.
local function job_rows(unused)
  local by_level, rows = {}, {}
  for _, row in ipairs(schema.describe()) do
    local level = row.unused == unused and not row.again and level_of(row.path)
    if level then
      by_level[level] = by_level[level] or {}
      table.insert(by_level[level], {
        name = level.name .. row.path:sub(#level.path + 1), type = row.type, default = row.default, required = row.required, doc = row.doc,
        values = row.values, engine = row.engine, policy = row.policy, level = level.title,
      })
    end
  end
  for i = #levels, 1, -1 do table.move(by_level[levels[i]] or {}, 1, #(by_level[levels[i]] or {}), #rows + 1, rows) end
  return rows
end

local function config_rows() return job_rows(false) end

-- A row's type, and its default.
local function nature(row)
  if row.required then return row.type .. ", required" end
  if row.default == nil or row.default == "" then return row.type end
  return ("%s, %s"):format(row.type, to_text(row.default))
end

local function meaning(row)
  return row.values and ("%s (%s)"):format(row.doc, table.concat(row.values, ", ")) or row.doc
end

-- Prints a name and its type on one line and its meaning below, within the terminal's width.
local function show(rows)
  local width = math.min(output.width(), 100)
  for _, row in ipairs(rows) do
    local heading = wrap(("%s (%s)"):format(row.name, nature(row)), width - 2)
    heading[1] = heading[1]:gsub("^%S+", function(name) return output.paint(name, "1") end)
    output.result(table.concat(heading, "\n  "))
    local doc = row.policy and ("%s; limited by %s"):format(meaning(row), table.concat(row.policy, ", ")) or meaning(row)
    for _, line in ipairs(wrap(doc, width - 4)) do output.result("    " .. line) end
  end
end

local function code(value) return value and value ~= "" and "`" .. value .. "`" or "" end

local function markdown_row(...) output.result("| " .. table.concat({ ... }, " | ") .. " |") end

local function show_level(title, rows)
  output.result(([[

## %s

| option | type | default | meaning | the engine's field | limited by |
| --- | --- | --- | --- | --- | --- |]]):format(title))
  for _, row in ipairs(rows) do
    local default = row.required and "required" or row.default ~= nil and code(to_text(row.default)) or ""
    local limits = {}
    for i, name in ipairs(row.policy or {}) do limits[i] = code(name) end
    markdown_row(code(row.name), row.type, default, meaning(row), code(row.engine), table.concat(limits, ", "))
  end
end

-- Groups rows by a key, in the order of their first.
local function grouped(rows, key)
  local order, groups = {}, {}
  for _, row in ipairs(rows) do
    local value = row[key]
    if not groups[value] then
      groups[value] = {}
      order[#order + 1] = value
    end
    table.insert(groups[value], row)
  end
  return order, groups
end

-- Prints the page docs/config.md.
local function show_markdown()
  output.result [[
# Options of a job

Every key of a job file. Names, types and defaults of `config` are those of Nomad's Docker driver. Numbers and booleans may be
quoted; `${…}` is interpolated in every string of a task. A *block* is `key { … }`, *blocks* may be repeated or be a list,
*named* blocks have a label: `task "web" { … }`. The command `dockrun help config --markdown > docs/config.md` makes this page;
`dockrun help config` shows it on a terminal, `--json` prints it for programs.]]
  local titles, by_title = grouped(config_rows(), "level")
  for _, title in ipairs(titles) do show_level(title, by_title[title]) end
  output.result [[

## Known to Nomad, not used here

These keys concern a cluster, or parts of Nomad that a single host does not have. dockrun keeps them, and warns once.

| of | keys |
| --- | --- |]]
  titles, by_title = grouped(job_rows(true), "level")
  for _, title in ipairs(titles) do
    local names = {}
    for i, row in ipairs(by_title[title]) do names[i] = code(row.name:match "%.(.+)$") end
    markdown_row(title:match "^%w+", table.concat(names, ", "))
  end
  output.result [[

## Limits of the agent

Options of the operator (`--set NAME=VALUE`, or a file). dockrun refuses a task that asks for more before it pulls or creates
anything, and names the option. Separate the items of a list by commas. An invalid value ends the command with 2. Global
options may also come from the environment: `DOCKRUN_STATE_DIR` is `--state-dir`.

The command reads `/etc/dockrun/config.lua` and then `$XDG_CONFIG_HOME/dockrun/config.lua` (`~/.config/dockrun/config.lua`)
if they exist; with `--config FILE` or `DOCKRUN_CONFIG` it reads only that file. The command line wins over the environment,
the environment over a file, and the user's file over the system's. Root refuses a file in these two places that does not
belong to root, or that other users may write to. A host program reads none of them. A config file is a table in Lua, or in
JSON if its name ends with `.json`:

```lua
return { docker = { volumes = { enabled = true } }, limits = { allocs = 500 } }
```

| option | type | default | meaning |
| --- | --- | --- | --- |]]
  local limits = {}
  for _, row in ipairs(config_rows()) do
    for _, name in ipairs(row.policy or {}) do limits[name] = true end
  end
  for _, row in ipairs(option_rows()) do
    if limits[row.name] then markdown_row(code(row.name), row.type, code(to_text(row.default)), row.doc) end
  end
end

-- ---- the command ------------------------------------------------------------------------------

local topics = {
  options = { rows = option_rows },
  config = { rows = config_rows, markdown = show_markdown },
}

return {
  summary = "Explain a command, or list the options.",
  define = function(command)
    command:argument("topic", "A command, 'options' (of the agent) or 'config' (of a job)."):args "?"
    command:flag("--markdown", "Print the page of the documentation ('config').")
  end,
  run = function(args, parser)
    local topic = topics[args.topic]
    if topic then
      if args.json then
        output.json(topic.rows())
      elseif args.markdown and topic.markdown then
        topic.markdown()
      else
        show(topic.rows())
      end
      return 0
    end
    if not args.topic then
      output.result(parser:get_help())
      return 0
    end
    parser:pparse { args.topic, "--help" }  -- prints it and exits
    output.say("error", ("no help on '%s': expected a command, 'options' or 'config'"):format(args.topic))
    return 2
  end,
}
