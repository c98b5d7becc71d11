-- Makes a small image from the static busybox of Debian's package busybox-static, without a registry. As a script:
-- dockrun scripts/busybox.lua REFERENCE. As a function: dofile it.
local dockrun = require "dockrun"

-- Makes a tar of the program, with a link beside it for each applet.
local build = [[
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/bin" "$dir/tmp" "$dir/etc"
cp "$(command -v busybox)" "$dir/bin/busybox"
"$dir/bin/busybox" --list | while read -r applet; do
  [ -e "$dir/bin/$applet" ] || ln -s busybox "$dir/bin/$applet"
done
echo 'root:x:0:0:root:/:/bin/sh' >"$dir/etc/passwd"
echo 'nobody:x:65534:65534:nobody:/:/bin/false' >>"$dir/etc/passwd"
echo 'nobody:x:65534:' >"$dir/etc/group"
tar -C "$dir" -c .
]]

--- Imports the image. Returns true, or nil and an error.
---@param engine table
---@param reference string  name:tag
---@param changes? string[]  Dockerfile instructions, such as "CMD [\"sh\"]"
local function make(engine, reference, changes)
  local name, tag = reference:match "^(.+):([^:/]+)$"
  if not name then return nil, dockrun.error("invalid", ("'%s' is not NAME:TAG"):format(reference)) end
  local tar <close> = assert(io.popen(("sh -c '%s'"):format(build:gsub("'", [['\'']])), "r"))
  local stream, err = engine:image_import {
    fromSrc = "-", repo = name, tag = tag, changes = { "ENV PATH=/bin", table.unpack(changes or {}) },
    body = function() return tar:read(65536) end,
  }
  if not stream then return nil, err end
  for message in stream do
    if message.error then return nil, dockrun.error("engine", message.error) end
  end
  return true
end

if arg and arg[0] and arg[0]:match "busybox%.lua$" then
  assert(arg[1], "usage: dockrun scripts/busybox.lua NAME:TAG")
  assert(make(assert(dockrun.connect()), arg[1]))
  print(arg[1])
end
return make
