-- --var K=V, as a table.
local dockrun = require "dockrun"

---@param given string[]?
---@return table<string, string>? vars
---@return table? err  kind "usage"
return function(given)
  local vars = {}
  for _, text in ipairs(given or {}) do
    local name, value = text:match "^([%a_][%w_]*)=(.*)$"
    if not name then
      local shown = #text > 60 and text:sub(1, 60) .. "…" or text
      return nil, dockrun.error("usage", ("--var takes NAME=VALUE, not '%s'"):format(shown))
    end
    vars[name] = value
  end
  return vars
end
