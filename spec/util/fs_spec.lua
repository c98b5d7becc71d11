local fs = require "dockrun.util.fs"
local uv = require "luv"

local function mode(path) return uv.fs_stat(path).mode & tonumber("777", 8) end

describe("files and directories", function()
  local dir

  before_each(function() dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX")) end)
  after_each(function() require("pl.dir").rmtree(dir) end)

  it("are made with those above them and a mode that no umask cuts, and keep their own", function()
    local path, wanted = dir .. "/a/b", tonumber("777", 8)
    assert.is_true(fs.make_directory(path, wanted) and true)
    assert.same({ wanted, wanted }, { mode(path), mode(dir .. "/a") })
    assert.is_true(fs.make_directory(path, tonumber("700", 8)))
    assert.equal(wanted, mode(path))
  end)

  it("cannot be made in a file, and the error has its code", function()
    assert(io.open(dir .. "/f", "w")):close()
    local ok, why, code = fs.make_directory(dir .. "/f/a", tonumber("700", 8))
    assert.is_nil(ok)
    assert.equal("ENOTDIR", code)
    assert.is_string(why)
  end)

  it("are listed and read", function()
    for _, name in ipairs { "x", "y" } do
      local file <close> = assert(io.open(dir .. "/" .. name, "w"))
      file:write(name)
    end
    local names = fs.list(dir)
    table.sort(names)
    assert.same({ "x", "y" }, names)
    assert.same({}, fs.list(dir .. "/none"))
    assert.equal("x", fs.read(dir .. "/x"))
    assert.matches("No such file", select(2, fs.read(dir .. "/none")), 1, true)
    assert.matches("is a directory", select(2, fs.read_any(dir, 10)), 1, true)
    assert.equal("x", fs.read_any(dir .. "/x", 10))
  end)
end)
