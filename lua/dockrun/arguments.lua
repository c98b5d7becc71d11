--- Command lines, of the commands and of scripts: a parser that ends a script as dockrun ends, and converters for
--- argparse. A converter returns the value, or nil and what is wrong.
local duration = require "dockrun.job.duration"

local M = {}

--- A parser (https://argparse.readthedocs.io) for a script. Wrong arguments end the script: usage and error on stderr,
--- exit code 2.
---@param name string     of the script
---@param summary string  one sentence
---@return table parser
function M.parser(name, summary)
  local parser = require "argparse"(name, summary)
  function parser:error(message)
    io.stderr:write(self:get_usage(), "\n\nError: ", message, "\n")
    os.exit(2, true)
  end
  return parser
end

--- Converts a duration: "1m30s" -> 90.
M.duration = duration.parse

--- Converts a whole number.
---@param flag string    named in the error
---@param least integer  the smallest number allowed
---@return fun(text: string): integer?, string?
function M.integer(flag, least)
  return function(text)
    local number = math.tointeger(tonumber(text))
    if number and number >= least then return number end
    return nil, ("%s: expected a whole number of at least %d, got '%s'"):format(flag, least, text)
  end
end

--- The values of `--var NAME=VALUE`, given any number of times: { "a=1" } -> { a = "1" }.
---@param given string[]?
---@return table<string, string>? vars
---@return string? why
function M.variables(given)
  local vars = {}
  for _, text in ipairs(given or {}) do
    local name, value = text:match "^([%a_][%w_]*)=(.*)$"
    if not name then
      local shown = #text > 60 and text:sub(1, 60) .. "…" or text
      return nil, ("--var: expected NAME=VALUE, got '%s'"):format(shown)
    end
    vars[name] = value
  end
  return vars
end

return M
