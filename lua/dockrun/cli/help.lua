local options = require "dockrun.options"
local output = require "dockrun.cli.output"
local schema = require "dockrun.job.schema"

-- ---- options of the agent ---------------------------------------------------------------------

local function shown(value)
  if type(value) == "table" then return table.concat(value, ", ") end
  return tostring(value)
end

-- A text as lines of at most so many characters.
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

-- ---- options of a task ------------------------------------------------------------------------

local TASK = "job.group.task."

-- Every option of `config`, and of `resources`, as { name = "config.mount.type", … }.
local function config_rows()
  local rows = {}
  for _, row in ipairs(schema.describe()) do
    local name = row.path:sub(1, #TASK) == TASK and row.path:sub(#TASK + 1)
    local wanted = name and (name:find "^config%." or name:find "^resources%.") and not name:find "^resources%.network%."
    if wanted and not row.unused then
      rows[#rows + 1] = {
        name = name, type = row.type, default = row.default, required = row.required, doc = row.doc, engine = row.engine,
        policy = row.policy,
      }
    end
  end
  return rows
end

-- What is said of a row beside its name: its type, and what it is where it is left out.
local function nature(row)
  if row.required then return row.type .. ", required" end
  if row.default == nil or row.default == "" then return row.type end
  return ("%s, %s"):format(row.type, shown(row.default))
end

-- A name and what it is on one line, its meaning below, within the terminal's width.
local function show(rows)
  local width = math.min(output.width(), 100)
  for _, row in ipairs(rows) do
    local heading = wrap(("%s (%s)"):format(row.name, nature(row)), width - 2)
    heading[1] = heading[1]:gsub("^%S+", function(name) return output.paint(name, "1") end)
    output.result(table.concat(heading, "\n  "))
    local doc = row.policy and ("%s; limited by %s"):format(row.doc, table.concat(row.policy, ", ")) or row.doc
    for _, line in ipairs(wrap(doc, width - 4)) do output.result("    " .. line) end
  end
end

local function code(value) return value and value ~= "" and "`" .. value .. "`" or "" end

local function markdown_row(...) output.result("| " .. table.concat({ ... }, " | ") .. " |") end

-- The page docs/config.md, whole.
local function show_markdown()
  output.result(([[
# Options of a task

What `config` and `resources` of a task may say. Names, types and defaults of `config` are those of Nomad's Docker
driver. Numbers and booleans may be quoted; `${…}` is filled in in every string. This page is made by
`dockrun help config --markdown > docs/config.md`; `dockrun help config` shows it on a terminal, and `--json` gives it to
programs.

| option | type | default | meaning | the engine's field | limited by |
| --- | --- | --- | --- | --- | --- |]]))
  for _, row in ipairs(config_rows()) do
    local default = row.required and "required" or row.default ~= nil and code(shown(row.default)) or ""
    local limits = {}
    for i, name in ipairs(row.policy or {}) do limits[i] = code(name) end
    markdown_row(code(row.name), row.type, default, row.doc, code(row.engine), table.concat(limits, ", "))
  end
  output.result([[

## Limits of the agent

Options of whoever runs dockrun (`--set NAME=VALUE`, or `--config FILE`). A task that asks for more is refused before
anything is pulled or made, with the option's name. A list is given with commas.

| option | type | default | meaning |
| --- | --- | --- | --- |]])
  local limits = {}
  for _, row in ipairs(config_rows()) do
    for _, name in ipairs(row.policy or {}) do limits[name] = true end
  end
  for _, row in ipairs(option_rows()) do
    if limits[row.name] then markdown_row(code(row.name), row.type, code(shown(row.default)), row.doc) end
  end
end

-- ---- the command ------------------------------------------------------------------------------

local topics = {
  options = { rows = option_rows },
  config = { rows = config_rows, markdown = show_markdown },
}

return {
  summary = "Explain a command, or the options.",
  define = function(command)
    command:argument("topic", "A command's name, 'options' for the agent's, 'config' for a task's."):args "?"
    command:flag("--markdown", "As the page of the documentation ('config').")
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
    output.say("error", ("no help on '%s'"):format(args.topic))
    return 2
  end,
}
