-- The state directory is no other user's business, whatever the umask is and whatever was there before.
local process = require "spec.process"
local rmtree = require("pl.dir").rmtree
local store = require "dockrun.store"
local uv = require "luv"

local NOBODY = 65534

local function mode(path) return ("%o"):format(assert(uv.fs_stat(path)).mode & tonumber("7777", 8)) end
local function octal(text) return tonumber(text, 8) end

describe("the state directory", function()
  local base, dir
  before_each(function()
    base = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-dir-XXXXXX"))
    dir = base .. "/state"
  end)
  after_each(function() process.run({ "-rf", base }, { program = "rm" }) end)

  local function open(opts)
    local state, err = store.open(dir, opts)
    if state then state:close() end
    return state, err
  end

  -- Opens it in a process with this umask, which holds it while the modes are looked at.
  local function modes_with(umask)
    local script = ([[
      local uv = require "luv"
      local state <close> = assert(require("dockrun.store").open(%q))
      assert(state:put_image { reference = "x", id = "y" })
      for _, name in ipairs { "", "/state.db", "/state.db-wal", "/state.db-shm", "/jobs", "/alloc" } do
        local stat = uv.fs_stat(%q .. name)
        if stat then print(name, ("%%o"):format(stat.mode & 4095)) end
      end]]):format(dir, dir)
    local result = process.run({ "-c", ("umask %s; exec %s -e '%s'"):format(umask, process.program, script) }, { program = "sh" })
    assert.equal("", result.stderr)
    local found = {}
    for name, bits in result.stdout:gmatch "([^\t\n]*)\t(%d+)" do found[name] = bits end
    return found
  end

  local private = { [""] = "700", ["/state.db"] = "600", ["/state.db-wal"] = "600", ["/state.db-shm"] = "600" }

  it("is made for its user alone, whatever the umask is", function()
    for _, umask in ipairs { "000", "022", "077", "0177" } do
      assert.same(private, modes_with(umask))
      rmtree(dir)
    end
  end)

  it("is tightened if it was there, with all that dockrun keeps in it", function()
    open():close()
    for _, name in ipairs { "/jobs", "/alloc" } do assert(uv.fs_mkdir(dir .. name, 511)) end
    for _, name in ipairs { "", "/jobs", "/alloc" } do assert(uv.fs_chmod(dir .. name, octal "777")) end
    assert(uv.fs_chmod(dir .. "/state.db", octal "666"))
    local found = modes_with "000"
    assert.same({ "700", "600", "700", "711" }, { found[""], found["/state.db"], found["/jobs"], found["/alloc"] })
  end)

  it("lets through to alloc/ if the engine asked for that, and nothing more", function()
    open()
    assert(uv.fs_chmod(dir, octal "711"))
    open()
    assert.equal("711", mode(dir))
  end)

  it("leaves a directory alone that holds other things, unless others may write to it", function()
    assert(uv.fs_mkdir(dir, 511))
    assert(io.open(dir .. "/other", "w")):close()
    for _, bits in ipairs { "755", "1777" } do  -- such as /tmp
      assert(uv.fs_chmod(dir, octal(bits)))
      assert.truthy(open())
      assert.equal(bits, mode(dir))
    end
    assert(uv.fs_chmod(dir, octal "777"))
    local state, err = open()
    assert.is_nil(state)
    assert.matches("refusing " .. dir .. ": it holds other files, and other users may write to it", tostring(err), 1, true)
    assert.equal("777", mode(dir))
  end)

  -- Each makes something of the directory another user's.
  local attacks = {
    ["the directory"] = function() assert(uv.fs_chown(dir, NOBODY, -1)) return dir end,
    ["the database"] = function() assert(uv.fs_chown(dir .. "/state.db", NOBODY, -1)) return dir .. "/state.db" end,
    ["the sockets' directory"] = function()
      assert(uv.fs_mkdir(dir .. "/jobs", 511))
      assert(uv.fs_chown(dir .. "/jobs", NOBODY, -1))
      return dir .. "/jobs"
    end,
    ["what alloc/ leads to"] = function()
      assert(uv.fs_mkdir(base .. "/theirs", 511))
      assert(uv.fs_chown(base .. "/theirs", NOBODY, -1))
      assert(uv.fs_symlink(base .. "/theirs", dir .. "/alloc"))
      return dir .. "/alloc"
    end,
    ["a link in its path"] = function()
      assert(uv.fs_symlink(base, base .. "/link"))
      assert(uv.fs_lchown(base .. "/link", NOBODY, -1))
      dir = base .. "/link/state"
      return base .. "/link"
    end,
    ["a link in a link's path"] = function()
      assert(uv.fs_symlink(base, base .. "/inner"))
      assert(uv.fs_lchown(base .. "/inner", NOBODY, -1))
      assert(uv.fs_symlink("inner", base .. "/outer"))
      dir = base .. "/outer/state"
      return base .. "/inner"
    end,
  }

  for what, attack in pairs(attacks) do
    it(("is refused if another user owns %s"):format(what), function()
      if uv.getuid() ~= 0 then return end
      open()
      local blamed = attack()
      for _, readonly in ipairs { false, true } do
        local state, err = open { readonly = readonly }
        assert.is_nil(state)
        local message = ("refusing %s: it belongs to user %d, but dockrun runs as user 0"):format(blamed, NOBODY)
        assert.matches(message, tostring(err), 1, true)
      end
      local result = process.run { "events", "--state-dir", dir }
      assert.equal(1, result.code)
      assert.matches("refusing " .. blamed, result.stderr, 1, true)
    end)
  end

  for name, command in pairs { ["state.db"] = "mkfifo", ["state.db-wal"] = "mkdir", jobs = "touch", alloc = "mkfifo" } do
    it(("is refused if %s is made by %s"):format(name, command), function()
      assert(uv.fs_mkdir(dir, octal "700"))
      process.run({ dir .. "/" .. name }, { program = command })
      local _, err = open()
      assert.equal("system", err.kind)
      assert.matches(("refusing %s/%s: expected a "):format(dir, name), err.message, 1, true)
    end)
  end

  it("may be reached by links of its own user", function()
    assert(uv.fs_symlink(base, base .. "/mine"))
    dir = base .. "/mine/state"
    assert.truthy(open())
    assert.equal("700", mode(dir))
  end)
end)
