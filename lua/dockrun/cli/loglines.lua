-- A container's output, line by line, to whoever shows it.
local runtime = require "dockrun.core.runtime"

local M = {}

--- Calls `line(text, stream)` for every line of a container's output. Returns at its end, or, with `follow`, at the
--- container's; goes on after a break of the connection.
---@param engine table
---@param id string
---@param opts { follow?: boolean, tail?: string, since?: string, tty?: boolean, timestamps?: boolean }
---@param line fun(text: string, stream: "stdout"|"stderr")
---@return true? ok
---@return table? err
function M.each(engine, id, opts, line)
  local since = opts.since
  while true do
    local stream <close>, err = engine:container_logs(id, {
      stdout = true, stderr = true, follow = opts.follow, tail = opts.tail, since = since, tty = opts.tty,
      timestamps = opts.timestamps,
    })
    if not stream then return nil, err end
    local rest = {}
    local text, which
    while true do
      text, which = stream:read()
      if text == nil then break end
      local start = 1
      local all = (rest[which] or "") .. text
      for at, next_at in all:gmatch "()\n()" do
        line((all:sub(start, at - 1):gsub("\r$", "")), which)
        start = next_at
      end
      rest[which] = all:sub(start)
    end
    for name, last in pairs(rest) do
      if last ~= "" then line(last, name) end
    end
    if which == nil or not opts.follow then
      if which then return nil, which end
      return true
    end
    since = tostring(os.time())  -- the connection broke: go on from here once the engine is back
    runtime.sleep(0.5)
    if not engine:container_inspect(id) then return nil, which end
  end
end

return M
