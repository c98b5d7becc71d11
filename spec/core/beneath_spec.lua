-- Files below a directory that others write to: both ways of walking there meet nothing outside of it.
local beneath = require "dockrun.core.beneath"
local process = require "spec.process"
local uv = require "luv"

for way, walks in pairs { ["with openat2"] = false, ["walking by components"] = true } do
  describe("a directory, " .. way, function()
    local base, top, dir

    before_each(function()
      base = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX"))
      top = base .. "/top"
      assert(uv.fs_mkdir(top, 493))
      assert(uv.fs_mkdir(base .. "/outside", 493))
      dir = assert(beneath.open(top, walks))
    end)

    after_each(function()
      dir:close()
      assert.equal("directory", assert(uv.fs_lstat(base .. "/outside")).type)
      assert.equal(0, process.run({ "-rf", base }, { program = "rm" }).code)
    end)

    local function sh(script) assert.equal(0, process.run({ "-ec", script }, { program = "sh", cwd = top }).code) end

    -- errno's number of what failed
    local function code(value, err)
      assert.is_nil(value)
      assert.equal("system", err.kind)
      return err.code
    end

    it("is not left by '..', an absolute path or a link on the way", function()
      sh "ln -s ../outside link; ln -s / root; ln -s /etc etc; mkdir d; ln -s ../../outside d/link; echo x >../outside/f"
      for _, path in ipairs { "../outside/f", "/etc/passwd", "link/f", "root/etc/passwd", "etc/passwd", "d/link/f", "d/../../outside/f" } do
        local fd, err = dir:open_file(path)
        assert.is_nil(fd)
        assert.truthy(err.code == 18 or err.code == 40 or walks and err.code == 20, path .. ": " .. tostring(err))
        assert.is_nil((dir:make_file(path .. ".new", 420)))
        assert.is_nil((dir:make_directory(path .. ".new", 493)))
        assert.is_nil((dir:rename("d", path .. ".new")))
        assert.is_nil((dir:list(path)))
        assert.is_nil((dir:remove(path, 10)))
        assert.is_nil((dir:kind(path)))
      end
      assert.truthy(uv.fs_lstat(base .. "/outside/f"))
    end)

    it("tells what is there, and never follows a link to tell", function()
      sh "mkdir d; echo 1234 >f; mkfifo p; ln -s d l"
      local found = {}
      for _, path in ipairs { "d", "f", "p", "l", "none", "none/none" } do found[path] = dir:kind(path) end
      assert.same({ d = "directory", f = "file", p = "other", l = "link", none = "nothing", ["none/none"] = "nothing" }, found)
      assert.equal(5, select(2, dir:kind "f"))
    end)

    it("makes what is asked for with its mode, whatever the umask, and nothing in another's place", function()
      assert(dir:make_directory("d", 511))
      assert(dir:make_directory("d", 448))  -- it is there
      assert(dir:make_file("d/f", 438))
      assert.same({ 511, 438 }, { uv.fs_stat(top .. "/d").mode & 511, uv.fs_stat(top .. "/d/f").mode & 511 })
      sh "ln -s ../outside/new l"
      assert.equal(17, code(dir:make_directory("l", 511)))
      assert.equal(17, code(dir:make_file("l", 511)))
      assert.equal(17, code(dir:make_directory("d/f", 511)))
      assert.same({}, assert(beneath.open(base)):list "outside")
    end)

    it("opens regular files alone, without waiting", function()
      sh "mkfifo p; mkdir d; echo text >f; [ $(id -u) != 0 ] || mknod c c 1 5"
      for _, path in ipairs { "p", "d" } do assert.equal(22, code(dir:open_file(path))) end
      if uv.getuid() == 0 then assert.equal(22, code(dir:open_file "c")) end
      assert.equal(2, code(dir:open_file "none"))
      local fd, size = assert(dir:open_file "f")
      assert.same({ "text\n", 5 }, { uv.fs_read(fd, 100, 0), size })
      uv.fs_close(fd)
    end)

    it("removes directories nested past PATH_MAX, wide ones and what is no file, by as many steps as it is told", function()
      sh [[
mkdir go
i=0; while [ $i -lt 60 ]; do mkdir n; touch n/f; mv go n/$(printf %0200d $i); mv n go; i=$((i + 1)); done]]
      sh [[
cd go; mkdir wide; cd wide; seq -f %g/a/b 300 | xargs mkdir -p
mkfifo p; ln -s ../../../outside l; ln -s /etc/passwd m; mkdir locked; mkdir locked/d; chmod 0500 locked]]
      if uv.getuid() ~= 0 then sh "chmod 0700 go/wide/locked" end
      local rounds = 0
      repeat
        rounds = rounds + 1
        local gone = assert.not_nil(dir:remove("go", 50))
      until gone
      assert.truthy(rounds > 10, rounds)
      assert.equal("nothing", dir:kind "go")
      assert.is_true(dir:remove("go", 50))
    end)

    it("removes a link and not what it leads to", function()
      sh "touch ../outside/f; ln -s ../outside l"
      assert.is_true(dir:remove("l", 10))
      assert.truthy(uv.fs_lstat(base .. "/outside/f"))
    end)

    it("says so when it is closed, and closes once", function()
      dir:close()
      dir:close()
      assert.error_matches(function() dir:kind "x" end, "closed")
      dir = assert(beneath.open(top, walks))
    end)

    it("does not let a race out", function()
      sh "mkdir d; mkdir ../outside/x; touch ../outside/x/keep"
      local swap <close> = process.start({ "-c", [[
mkdir x d2; ln -s ../outside/x l; echo ready
while :; do mv -T x d2/o; mv -T l x; mv -T x l; mv -T d2/o x; done]] }, { program = "sh", cwd = top })
      swap:wait_for "ready"
      for i = 1, 300 do
        dir:make_directory("x/" .. i, 511)
        dir:remove("x/keep", 10)
        if i % 10 == 0 then dir:remove("x", 100) dir:make_directory("x", 511) end
      end
      assert.same({ "keep" }, assert(beneath.open(base)):list "outside/x")
      swap:kill "SIGKILL"
    end)
  end)
end

describe("a directory", function()
  it("finds where links lead that stay below it", function()
    local top = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX"))
    local dir <close> = assert(beneath.open(top))
    local script = "mkdir -p a/b; ln -s ../a/b a/l; ln -s a/l m; ln -s / out; ln -s .. up; ln -s loop loop"
    assert.equal(0, process.run({ "-ec", script }, { program = "sh", cwd = top }).code)
    local found = {}
    for _, path in ipairs { "a", "a/l", "m", "a/l/../b", "none", "a/none" } do found[path] = dir:resolve(path) end
    assert.same({ a = "a", ["a/l"] = "a/b", m = "a/b", ["a/l/../b"] = "a/b", none = false, ["a/none"] = false }, found)
    for _, path in ipairs { "out", "up", "loop", "out/etc", ".." } do assert.is_nil((dir:resolve(path)), path) end
    assert.is_true(assert(beneath.open(uv.os_tmpdir())):remove(top:match "[^/]+$", 100))
  end)

  it("is no link itself, and is there", function()
    local path = os.tmpname()
    os.remove(path)
    assert.is_nil((beneath.open(path)))
    assert(uv.fs_symlink("/etc", path))
    local dir, err = beneath.open(path)
    os.remove(path)
    assert.is_nil(dir)
    assert.truthy(tostring(err):find(path, 1, true))
  end)
end)
