-- Tasks that try to escape from their allocation: one task restarts and binds paths of the allocation; another task (and the
-- first itself, before it ends) replaces those paths and their parents by links to a directory of the host.
local jobs = require "spec.jobs"
local process = require "spec.process"
local uv = require "luv"

local M = {}

-- Replaces DIRECTORY/NAME by a link to the host's directory, and back, repeatedly.
local SWAP = [[
swap() {
  cd "$1" || return
  while :; do
    mv -T "$2" ".$2"; ln -s "$HOST" "$2"; sleep "0.$((RANDOM % 4))"
    [ -L "$2" ] && rm "$2"; mv -T ".$2" "$2"; sleep "0.$((RANDOM % 4))"
  done 2>/dev/null
}
mkdir -p /alloc/data/x /alloc/data/y/z
for path in "/alloc/data x" "/alloc/data y" "/alloc/data/y z" "/alloc data" "/alloc t"; do swap $path & done
wait]]

-- Leaves its mark in every path that it has bound, then replaces what it can rename by links.
local TRY = [[
for path in /x /z /data/x /data/y/z /t /etc/x /alloc/t; do echo escaped >"$path/mark"; done 2>/dev/null
for path in /local/conf /local/a/b /local/a /alloc/data/x /alloc/data; do
  mv -T "$path" "$path.old"; rm -f "$path"; ln -s "$HOST" "$path"
done 2>/dev/null
exit 1]]

local JOB = [[
local function one(name, command, config, more)
  more.driver, more.kill_timeout, more.resources, more.env = "docker", 1, { memory = 32 }, { HOST = %q }
  config.image, config.command, config.args = "busybox:1", "sh", { "-c", command }
  more.config = config
  return task(name)(more)
end
return job %q { type = "batch", group "g" { count = %d,
  restart = { attempts = %d, delay = "0s", interval = "24h", mode = "fail" },
  one("swaps", %q, {}, { lifecycle = { hook = "prestart", sidecar = true } }),
  one("binds", %q, {
    volumes = { "local/conf:/etc/x", "../alloc/data:/data", "../alloc/data/x:/x", "../alloc/data/y/z:/z", "local/a/b:/alloc/t" },
    mount = { { type = "bind", source = "../alloc/t", target = "/t" } },
  }, {}),
} }]]

--- Runs the race to its end.
---@param endpoint string
---@param o { count: integer, restarts: integer, timeout: number }  restarts of each of `count` allocations
---@return { restarts: integer, out: string[], failures: table<string, true> }  out: what is in the host's directory
function M.race(endpoint, o)
  local host = assert(uv.fs_mkdtemp(uv.cwd() .. "/build/escape-XXXXXX"))
  assert(uv.fs_chmod(host, 511))
  local name = jobs.unique "escape"
  local path, file = jobs.write(JOB:format(host, name, o.count, o.restarts, SWAP, TRY))
  local _ <close> = file
  local result = process.run({ "run", "--endpoint", endpoint, "--state-dir", jobs.state_dir, path }, { timeout = o.timeout })
  local found = { restarts = 0, out = {}, failures = {} }
  local entries = uv.fs_scandir(host)
  for entry in function() return uv.fs_scandir_next(entries) end do found.out[#found.out + 1] = entry end
  for why in result.stderr:gmatch "binds: failed +([^\n]*)" do found.failures[why] = true end
  for _ in result.stderr:gmatch "binds: restarting" do found.restarts = found.restarts + 1 end
  process.run({ "-rf", host }, { program = "rm" })
  return found
end

return M
