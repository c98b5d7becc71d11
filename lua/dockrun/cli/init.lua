-- The command line: commands, global options and exit codes. Each command has a file of its own in this directory.
local config = require "dockrun.cli.config"
local dockrun = require "dockrun"
local endpoint = require "dockrun.driver.endpoint"
local internal = require "dockrun.util.internal"
local options = require "dockrun.options"
local output = require "dockrun.output"

-- In the order of the help.
local commands = { "run", "plan", "validate", "status", "logs", "exec", "stop", "stats", "events", "fingerprint", "gc", "adopt", "agent",
  "version", "help" }

-- Global options may come before or after the command's name. `option`: which of dockrun.options it sets. Each that may be
-- given only once has an environment variable too: DOCKRUN_STATE_DIR for --state-dir.
local globals = {
  { flags = "--endpoint", option = "docker.endpoint", argument = "URL", doc = "The engine (unix://, tcp://, http://, https://, ssh://)." },
  { flags = "--context", option = "context", argument = "NAME", doc = "Docker context to take the endpoint from." },
  { flags = "--bind-ip", option = "docker.bind_ip", argument = "IP", doc = "Address that ports are bound on." },
  { flags = "--state-dir", option = "state_dir", argument = "DIR", doc = "Directory of the state." },
  { flags = "--config", argument = "FILE", doc = "Read options from this Lua or JSON file only." },
  { flags = "--set", argument = "NAME=VALUE", many = true, doc = "Set one option (dockrun help options)." },
  { flags = "--dev", option = "dev", doc = "Read DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH." },
  { flags = "--json", doc = "Results as JSON." },
  { flags = "-v --verbose", doc = "Print more on stderr." },
}

-- Exit codes by the kind of an error; docs/job.md lists them.
local exit_codes = {
  spec = 2, invalid = 2, usage = 2, unreachable = 3, timeout = 3, protocol = 3, engine = 1, failed = 1,
  constraint = 1, taken = 1, system = 1, cancelled = 130, corrupt = 1, full = 1, readonly = 1, busy = 1, store = 1, missing = 1,
  hung = 1, output = 1,
}

local function fail(err)
  local kind = type(err) == "table" and err.kind
  local reader_gone = kind == "cancelled" and err.signal == "SIGPIPE"
  local code = reader_gone and 141 or exit_codes[kind] or 4
  local level = (reader_gone or kind == "output") and "debug" or kind == "cancelled" and "info" or "error"
  output.say(level, tostring(err))
  if kind == "internal" then output.say("error", err.traceback) end
  if kind == "unreachable" then output.say("error", "is the engine running? give its address with --endpoint") end
  return code
end

local function is_command(word)
  for _, name in ipairs(commands) do
    if name == word then return true end
  end
  return false
end

local function add_command(parser, name)
  local command = require("dockrun.cli." .. name)
  local own = parser:command(name, command.summary)
  command.define(own)
  return own
end

-- A parser with the global options and the command `word`, or every command if `word` is none. Also returns the parser of
-- that command.
local function build_parser(word)
  local parser = require "argparse"("dockrun", "Runs and scripts containers on a Docker engine.")
    :epilog "dockrun SCRIPT.lua [ARG…], dockrun -e CODE and dockrun - run Lua on the same runtime."
    :require_command(true):command_target "command"
  for _, row in ipairs(globals) do
    local option = row.argument and parser:option(row.flags, row.doc):argname(row.argument) or parser:flag(row.flags, row.doc)
    if row.many then option:count "*" end
  end
  if is_command(word) and word ~= "help" then return parser, add_command(parser, word) end
  for _, name in ipairs(commands) do add_command(parser, name) end
  return parser, parser
end

local function set_option(source, name, value)
  local ok, err = options.set(dockrun.options, name, value)
  if not ok then err.message = ("%s: %s"):format(source, err.message) end
  return ok, err
end

local words_for = { ["1"] = true, ["true"] = true, ["0"] = false, ["false"] = false }

-- Reads global options from the environment, unless the command line gives them.
---@return { name: string, value: any, variable: string }[]? settings  of options
---@return table? err
local function read_environment(args)
  local settings = {}
  for _, row in ipairs(globals) do
    local key = row.flags:match "%-%-([%w-]+)":gsub("-", "_")
    local variable = "DOCKRUN_" .. key:upper()
    local text = os.getenv(variable) or ""
    if not row.many and text ~= "" and args[key] == nil then
      local value = text
      if not row.argument then value = words_for[text] end
      if value == nil then return nil, dockrun.error("usage", ("%s: expected 1, true, 0 or false, got '%s'"):format(variable, text)) end
      if row.option then
        settings[#settings + 1] = { name = row.option, value = value, variable = variable }
      else
        args[key] = value
      end
    end
  end
  return settings
end

-- Sets dockrun.options from files, the environment and the command line; the last wins. nil, err if one is wrong.
local function apply_globals(args)
  local settings, err = read_environment(args)
  if not settings then return nil, err end
  local ok
  ok, err = config.read(dockrun.options, args.config)
  if not ok then return nil, err end
  for _, setting in ipairs(settings) do
    ok, err = set_option(setting.variable, setting.name, setting.value)
    if not ok then return nil, err end
  end
  for _, setting in ipairs(args.set or {}) do
    local name, value = setting:match "^([%w_.]+)=(.*)$"
    if not name then return nil, dockrun.error("usage", ("--set: expected NAME=VALUE, got '%s'"):format(setting)) end
    ok, err = set_option("--set", name, value)
    if not ok then return nil, err end
  end
  for _, row in ipairs(globals) do
    local flag = row.flags:match "%-%-[%w-]+"
    local given = args[flag:sub(3):gsub("-", "_")]
    if row.option and given ~= nil then
      ok, err = set_option(flag, row.option, given)
      if not ok then return nil, err end
    end
  end
  output.verbose = args.verbose
  return options.check(dockrun.options)
end

local function run_command(argv, word)
  local parser, command = build_parser(word)
  local ok, args = parser:pparse(argv)
  if not ok then
    io.stderr:write(command:get_usage(), "\n")
    output.say("error", args)
    return 2
  end
  local set, err = apply_globals(args)
  if not set then return fail(err) end
  local notice = endpoint.notice(dockrun.options)
  if notice then output.say("warn", notice) end
  local done, code, why = xpcall(require("dockrun.cli." .. args.command).run, internal.handler, args, parser)
  if done and code ~= nil then return code end
  return fail(done and why or code)
end

-- The index of the first word that is not a global option.
local function first_word(argv)
  local with_argument = {}
  for _, row in ipairs(globals) do
    for flag in row.flags:gmatch "%S+" do with_argument[flag] = row.argument ~= nil end
  end
  local i = 1
  while argv[i] and argv[i]:sub(1, 1) == "-" and with_argument[argv[i]:match "^[^=]+"] ~= nil do
    local takes_next = with_argument[argv[i]:match "^[^=]+"] and not argv[i]:find("=", 1, true)
    i = i + (takes_next and 2 or 1)
  end
  return i
end

-- The options before a script.
local function apply_before(argv, count)
  if count == 0 then return apply_globals {} end
  local parser = require "argparse" "dockrun"
  for _, row in ipairs(globals) do
    local option = row.argument and parser:option(row.flags) or parser:flag(row.flags)
    if row.many then option:count "*" end
  end
  local ok, args = parser:pparse(table.move(argv, 1, count, 1, {}))
  package.loaded.argparse = nil  -- it reads the global `arg` when it is loaded, and the script has one of its own
  if not ok then return nil, dockrun.error("usage", args) end
  return apply_globals(args)
end

--- The whole command.
---@param argv string[]  argv[0] is the program
---@return integer|function exit_code  or a script, which the core calls
---@return string ...  the script's arguments
return function(argv)
  local at = first_word(argv)
  local word = argv[at]
  if word and (is_command(word) or word == "-h" or word == "--help") then return run_command(argv, word) end
  local ok, err = apply_before(argv, at - 1)
  if not ok then return fail(err) end
  return require "dockrun.cli.script"(argv, at)
end
