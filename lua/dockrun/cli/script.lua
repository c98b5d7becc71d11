-- dockrun as an interpreter, with the words of `lua`: a file, -e CODE, - (stdin), or a prompt.
local output = require "dockrun.output"
local standard = require "dockrun.core.standard"

-- Sets the global `arg` as lua does: the script at 0, its arguments from 1, the words before it below 0.
local function set_arg(argv, script)
  local arg = {}
  for i = 0, #argv do arg[i - script] = argv[i] end
  _G.arg = arg
  return table.unpack(arg)
end

-- Text for `load`, which unlike `loadfile` accepts neither a byte order mark nor a first line that begins with "#".
local function without_head(text) return (text:gsub("^\xEF\xBB\xBF", ""):gsub("^#[^\n]*", "")) end

local function prepare(chunk, why, ...)
  if not chunk then
    io.stderr:write("dockrun: ", why, "\n")
    return 1
  end
  return chunk, ...
end

---@param argv string[]
---@param at integer   the first word that is not a global option
---@return integer|function exit_code  or the script, which the core calls
---@return string ...  the script's arguments
return function(argv, at)
  standard.end_with_reader "later"
  local word = argv[at]
  if word == nil and output.is_terminal(0) then return require "dockrun.cli.prompt"() end
  if word == nil or word == "-" then
    local text, problem = io.read "a"
    local chunk, why
    if text then chunk, why = load(without_head(text), "=stdin") else why = "cannot read stdin: " .. problem end
    return prepare(chunk, why, set_arg(argv, word and at or #argv + 1))
  end
  if word == "-e" then
    if not argv[at + 1] then
      io.stderr:write("dockrun: '-e' needs the code to run\n")
      return 2
    end
    local chunk, why = load(argv[at + 1], "=(command line)")
    return prepare(chunk, why, set_arg(argv, at + 1))
  end
  if word:sub(1, 1) == "-" and word ~= "--" then
    io.stderr:write(("dockrun: unknown option '%s'; see dockrun --help\n"):format(word))
    return 2
  end
  if word == "--" then at = at + 1 end
  if not argv[at] then
    io.stderr:write "dockrun: no script after '--'\n"
    return 2
  end
  local chunk, why = loadfile(argv[at])
  return prepare(chunk, why, set_arg(argv, at))
end
