local ports = require "dockrun.core.ports"
local uv = require "luv"

local LOCAL = "127.0.0.1"

-- Other processes run the interpreter that runs this spec, lua5.4 or dockrun: both take -e.
-- A child prints what it did and then holds it until its input ends.
local children
local function child(code)
  local path = os.tmpname()
  local command = ("exec '%s' -e '%s io.stdout:write(\"\\ndone\\n\"):flush() io.read()' > %s"):format(uv.exepath(), code, path)
  local pipe = assert(io.popen(command, "w"))
  local self = {}
  children[#children + 1] = self
  function self.close()
    if pipe then pipe:close() end
    pipe = nil
    os.remove(path)
  end
  function self.output()
    for _ = 1, 18000 do -- for 180 s
      local file = assert(io.open(path))
      local text = file:read "a"
      file:close()
      local result = text:match "^(.*)\ndone\n"
      if result then return result end
      uv.sleep(10)
    end
    error("the child did not finish: " .. command)
  end
  return self
end

-- Another program that is bound to a port: a child with its `port`, `name` and `pid`. By udp it is one that would share.
local function program(kind, ip, port)
  local flags = kind == "udp" and ", { reuseaddr = true }" or ""
  local self = child(([[
    uv = require "luv"
    socket = uv.new_%s()
    assert(socket:bind("%s", %d%s))
    if socket.listen then assert(socket:listen(16, print)) end
    io.write(socket:getsockname().port, " ", uv.os_getpid(), " ", io.open("/proc/self/comm"):read())
  ]]):format(kind, ip, port, flags))
  local bound, pid, name = self.output():match "^(%d+) (%d+) (%g+)"
  self.port, self.pid, self.name = math.tointeger(bound), math.tointeger(pid), name
  return self
end

-- Allocators are closed after each example, even of one that failed.
local allocators
local function allocator(options)
  local alloc = ports.new(options)
  allocators[#allocators + 1] = alloc
  return alloc
end

-- Copies of this spec that run beside each other keep to 1200 ports each, below the range from which the kernel takes
-- the ports of outgoing connections. The lease of a port just under 20000 claims such a territory.
local territory, claim
local function claim_territory()
  claim = ports.new()
  for i = 0, 9 do
    if claim:adopt(LOCAL, 19990 + i, "spec") then
      territory = { from = 20000 + 1200 * i, to = 21199 + 1200 * i }
      return
    end
  end
  error("ten copies of this spec are running already")
end

-- A run of n ports that nobody has.
local function free_range(n)
  local draw <close> = ports.new { from = territory.from, to = territory.to - n + 1 }
  for _ = 1, 100 do
    local from = assert(draw:allocate("0.0.0.0", "draw"))
    draw:release("0.0.0.0", from)
    local try <close> = ports.new { from = from, to = from + n - 1 }
    repeat local port = try:allocate("0.0.0.0", "try") until not port
    if #try == n then return from, from + n - 1 end
  end
  error(("no %d free ports in a row"):format(n))
end

local function allocate_all(alloc, ip)
  local got = {}
  while true do
    local port, err = alloc:allocate(ip, "all")
    if not port then return got, err end
    got[#got + 1] = port
  end
end

describe("ports", function()
  it("give an address one spelling, and its family", function()
    for text, want in pairs {
      ["192.0.2.1"] = { "192.0.2.1", 4 }, ["2001:DB8:0::1"] = { "2001:db8::1", 6 }, ["::"] = { "0.0.0.0", 6 },
      ["::ffff:192.0.2.1"] = { "192.0.2.1", 6 },
    } do
      assert.same(want, { ports.address(text) })
    end
    for _, text in ipairs { "", "192.0.2", "192.0.2.256", "localhost", "192.0.2.1:80", ":::", "fe80::1%lo" } do
      local address, err = ports.address(text)
      assert.is_nil(address)
      assert.equal("invalid", err.kind)
    end
  end)

  setup(claim_territory)
  teardown(function() local _ <close> = claim end)
  before_each(function() children, allocators = {}, {} end)
  after_each(function()
    for _, each in ipairs(children) do each.close() end
    for _, each in ipairs(allocators) do local _ <close> = each end
  end)

  describe("allocating", function()
    it("gives each port of the range once, then says that it is exhausted", function()
      local from, to = free_range(8)
      local got, err = allocate_all(allocator { from = from, to = to }, LOCAL)
      table.sort(got)
      assert.same({ from, from + 1, from + 2, from + 3, from + 4, from + 5, from + 6, to }, got)
      assert.equal("exhausted", err.kind)
      assert.equal(("no free port in %d-%d on 127.0.0.1: 8 held by this runtime, 0 by other dockrun processes, "
        .. "0 by other programs; stop some of them, or widen the range"):format(from, to), tostring(err))
    end)

    it("hands out 20000 to 60000 where no range is given", function()
      local alloc = allocator()
      for _ = 1, 20 do
        local port = assert(alloc:allocate(LOCAL, "a"))
        assert.is_true(port >= 20000 and port <= 60000)
      end
      assert.equal(20, #alloc)
    end)

    it("spreads its ports over the range", function()
      local alloc, low = allocator { from = 40001, to = 60000 }, 0
      for _ = 1, 400 do
        local port = alloc:allocate(LOCAL, "a")
        if port <= 50000 then low = low + 1 end
        alloc:release(LOCAL, port)
      end
      assert.is_true(low > 120 and low < 280, low .. " of 400 in the lower half")
    end)

    it("replays one sequence from one seed", function()
      local function draw(seed)
        local alloc <close> = ports.new { from = 40001, seed = seed }
        local got = {}
        for i = 1, 4 do got[i] = alloc:allocate(LOCAL, "a") end
        return got
      end
      local seed = uv.os_getpid()
      assert.same(draw(seed), draw(seed))
      assert.are_not.same(draw(seed), draw(seed + 1))
    end)

    it("skips what a program is bound to, by tcp or by udp, and finds it again once it is not", function()
      local from, to = free_range(4)
      local tcp = program("tcp", LOCAL, from + 1)
      program("udp", LOCAL, from + 2)
      local alloc = allocator { from = from, to = to }
      local got, err = allocate_all(alloc, LOCAL)
      table.sort(got)
      assert.same({ from, to }, got)
      assert.matches("2 held by this runtime, 0 by other dockrun processes, 2 by other programs", tostring(err), 1, true)
      tcp.close()
      assert.equal(from + 1, alloc:allocate(LOCAL, "a"))
    end)

    it("finds the last free port of a full range as quickly as the first", function()
      local from, to = free_range(1000)
      local alloc = allocator { from = from, to = to }
      local function seconds(n)
        local start = uv.hrtime()
        for _ = 1, n do alloc:release(LOCAL, assert(alloc:allocate(LOCAL, "a"))) end
        return (uv.hrtime() - start) / 1e9
      end
      seconds(100)
      local empty = seconds(500)
      alloc:release(LOCAL, allocate_all(alloc, LOCAL)[1])
      local full = seconds(500)
      assert.is_true(full < 4 * empty + 0.05, ("%.4f s empty, %.4f s full"):format(empty, full))
    end)

    it("gives up at once on an address that the host does not have", function()
      local port, err = allocator():allocate("192.0.2.1", "a")
      assert.is_nil(port)
      assert.equal("system", err.kind)
      assert.matches("on 192.0.2.1 (the address must be one of this host's)", tostring(err), 1, true)
    end)
  end)

  describe("reserving", function()
    it("takes exactly that port, in the range or not", function()
      local from, to = free_range(2)
      local alloc = allocator { from = from, to = from }
      assert.is_true(alloc:reserve(LOCAL, to, "job.group[0].task"))
      assert.same({ { ip = LOCAL, port = to, owner = "job.group[0].task" } }, alloc:held())
    end)

    it("names the owner of what this allocator holds", function()
      local port = free_range(1)
      local alloc = allocator()
      alloc:reserve(LOCAL, port, "cache.redis[0].redis")
      local ok, err = alloc:reserve(LOCAL, port, "web.web[0].nginx")
      assert.is_nil(ok)
      assert.equal("taken", err.kind)
      assert.same({ LOCAL, port, "cache.redis[0].redis" }, { err.ip, err.port, err.holder })
      assert.equal(("port %d on 127.0.0.1 is held by cache.redis[0].redis; choose another port, or stop its holder")
        :format(port), tostring(err))
    end)

    it("sees another allocator of this process as another holder", function()
      local port = free_range(1)
      local first, second = allocator(), allocator()
      assert.is_true(first:reserve(LOCAL, port, "a"))
      local _, err = second:reserve("127.0.0.2", port, "b")
      assert.equal(("another allocator of this process (pid %d)"):format(uv.os_getpid()), err.holder)
    end)

    it("names another dockrun process by its pid, however often it is asked", function()
      local port = free_range(1)
      local other = child(([[
        alloc = require "dockrun.core.ports".new()
        assert(alloc:reserve("127.0.0.1", %d, "theirs"))
        io.write(require "luv".os_getpid())]]):format(port))
      local pid = math.tointeger(other.output())
      local alloc = allocator()
      for _ = 1, 40 do
        local ok, err = alloc:reserve(LOCAL, port, "ours")
        assert.is_nil(ok)
        assert.same({ "taken", pid, ("another dockrun process (pid %d)"):format(pid) }, { err.kind, err.pid, err.holder })
      end
      other.close()
      assert.is_true(alloc:reserve(LOCAL, port, "ours"))
    end)

    for _, case in ipairs {
      { "tcp", LOCAL, LOCAL }, { "udp", LOCAL, LOCAL }, { "tcp", "0.0.0.0", LOCAL }, { "udp", LOCAL, "0.0.0.0" },
      { "tcp", "::", LOCAL }, { "tcp", "::1", "0.0.0.0" }, { "udp", "::1", "::1" },
    } do
      local kind, bound, asked = table.unpack(case)
      it(("names the program that has %s on %s when asked for %s"):format(kind, bound, asked), function()
        local port = free_range(1)
        local holder = program(kind, bound, port)
        local ok, err = allocator():reserve(asked, port, "ours")
        assert.is_nil(ok)
        assert.same({ "taken", port, holder.pid, ("process %s (pid %d)"):format(holder.name, holder.pid) },
          { err.kind, err.port, err.pid, err.holder })
      end)
    end

    -- A program that has ended while its connection has not: the kernel keeps the local end of it, without a process, until
    -- the other end is closed. Returns its port.
    local function remains(bind)
      local server = program("tcp", LOCAL, 0)
      local client = child(([[
        client = require "luv".new_tcp()
        %s
        client:connect("%s", %d, print)
        io.write(client:getsockname().port, "\ndone\n")
        os.exit()]]):format(bind, LOCAL, server.port))
      local port = math.tointeger(client.output())
      client.close()
      return port
    end

    it("names the kernel where no process has the port any more", function()
      local _, err = allocator():reserve(LOCAL, remains "", "ours")
      assert.equal("the kernel (protocol tcp)", err.holder)
      assert.is_nil(err.pid)
    end)

    it("passes over the remains of a server's connections, as the engine's proxy does", function()
      local port = free_range(1)
      assert.equal(port, remains(('client:bind("%s", %d)'):format(LOCAL, port)))
      assert.is_true(allocator():reserve(LOCAL, port, "ours"))
    end)

    it("adopts a port that a running container is bound to already", function()
      local port = program("tcp", LOCAL, free_range(1)).port
      local alloc = allocator()
      assert.is_nil(alloc:reserve(LOCAL, port, "ours"))
      assert.is_true(alloc:adopt(LOCAL, port, "ours"))
      assert.is_nil(allocator():adopt(LOCAL, port, "theirs"))
      assert.equal("ours", select(2, alloc:adopt(LOCAL, port, "again")).holder)
    end)

    for _, case in ipairs {
      { "a name for an address", "localhost", 80, "'localhost' is not an IPv4 or IPv6 address" },
      { "an address with a port", "127.0.0.1:80", 80, "'127.0.0.1:80' is not an IPv4 or IPv6 address" },
      { "port 0", LOCAL, 0, "port 0 is not within 1-65535" },
      { "port 65536", LOCAL, 65536, "port 65536 is not within 1-65535" },
    } do
      local what, ip, port, message = table.unpack(case)
      it("refuses " .. what, function()
        local ok, err = allocator():reserve(ip, port, "ours")
        assert.is_nil(ok)
        assert.equal("invalid", err.kind)
        assert.matches(message, tostring(err), 1, true)
      end)
    end
  end)

  describe("addresses", function()
    it("each have all ports, but share them with the wildcard", function()
      local port = free_range(1)
      local alloc = allocator()
      assert.is_true(alloc:reserve(LOCAL, port, "one"))
      assert.is_true(alloc:reserve("127.0.0.2", port, "two"))
      assert.is_nil(alloc:reserve("0.0.0.0", port, "all"))
      assert.is_nil(alloc:reserve("::", port, "all"))
      alloc:release(LOCAL, port)
      assert.equal("two", select(2, alloc:reserve("0.0.0.0", port, "all")).holder)
      alloc:release("127.0.0.2", port)
      assert.is_true(alloc:reserve("0.0.0.0", port, "all"))
      for _, ip in ipairs { LOCAL, "::1", "127.0.0.3" } do
        assert.equal("all", select(2, alloc:reserve(ip, port, "one")).holder)
      end
    end)

    it("of a new kind respect what the wildcard held before", function()
      local from, to = free_range(2)
      local alloc = allocator { from = from, to = to }
      assert.is_true(alloc:reserve("0.0.0.0", from, "all"))
      assert.equal(to, alloc:allocate(LOCAL, "one"))
      local port, err = alloc:allocate("0.0.0.0", "all")
      assert.is_nil(port)
      assert.matches("2 held by this runtime", tostring(err), 1, true)
    end)

    it("are compared by value, not as text", function()
      local port = free_range(1)
      local alloc = allocator()
      assert.is_true(alloc:reserve("::1", port, "v6"))
      assert.is_nil(alloc:reserve("0:0:0:0:0:0:0:1", port, "again"))
      assert.is_true(alloc:reserve("::ffff:127.0.0.1", port, "v4"))
      assert.equal("v4", select(2, alloc:reserve(LOCAL, port, "again")).holder)
      assert.is_true(alloc:release("0::1", port))
    end)

    it("share one lease of a port, until the last gives it back", function()
      local port = free_range(1)
      local first, second = allocator(), allocator()
      first:reserve(LOCAL, port, "one")
      first:reserve("127.0.0.2", port, "two")
      first:release(LOCAL, port)
      assert.is_nil(second:reserve("127.0.0.3", port, "three"))
      first:release("127.0.0.2", port)
      assert.is_true(second:reserve("127.0.0.3", port, "three"))
    end)
  end)

  describe("releasing", function()
    it("says whether the port was held, and may be done twice", function()
      local port = free_range(1)
      local alloc = allocator()
      alloc:reserve(LOCAL, port, "a")
      assert.is_false(alloc:release("127.0.0.2", port))
      assert.is_true(alloc:release(LOCAL, port))
      assert.is_false(alloc:release(LOCAL, port))
      assert.equal(0, #alloc)
    end)

    it("is done for all ports when the allocator goes out of scope or is collected", function()
      local port = free_range(1)
      local other = allocator()
      do
        local alloc <close> = ports.new()
        alloc:reserve(LOCAL, port, "a")
        assert.is_nil(other:reserve(LOCAL, port, "b"))
      end
      assert.is_true(other:reserve(LOCAL, port, "b"))
      other:release(LOCAL, port)
      ports.new():reserve(LOCAL, port, "a")
      collectgarbage()
      collectgarbage()
      assert.is_true(other:reserve(LOCAL, port, "b"))
    end)

    it("leaves no descriptor behind", function()
      local function descriptors()
        local n = 0
        for _ in uv.fs_scandir_next, assert(uv.fs_scandir "/proc/self/fd") do n = n + 1 end
        return n
      end
      local from, to = free_range(4)
      program("udp", "0.0.0.0", from)
      collectgarbage()
      local before = descriptors()
      do
        local alloc <close> = ports.new { from = from, to = to }
        allocate_all(alloc, LOCAL)
        alloc:reserve("0.0.0.0", from, "a")
        assert.equal(before + 3, descriptors())
      end
      assert.equal(before, descriptors())
    end)
  end)

  describe("probing", function()
    it("asks for tcp and udp, and binds nothing", function()
      local port = free_range(1)
      assert.is_true(ports.probe("0.0.0.0", port))
      local holder = program("udp", LOCAL, port)
      local ok, err = ports.probe("0.0.0.0", port)
      assert.is_nil(ok)
      assert.same({ "taken", port, holder.pid }, { err.kind, err.port, err.pid })
      assert.is_true(ports.probe("127.0.0.2", port))
    end)
  end)

  it("never share a port between processes that allocate at one time", function()
    local from, to = free_range(60)
    local crowd = {}
    for i = 1, 4 do
      crowd[i] = child(([[
        alloc = require "dockrun.core.ports".new { from = %d, to = %d }
        repeat
          port = alloc:allocate("127.0.0.%d", "crowd")
          if port then io.write(port, " ") end
        until not port]]):format(from, to, i))
    end
    local holders, n = {}, 0
    for i, each in ipairs(crowd) do
      for port in each.output():gmatch "%d+" do
        assert.is_nil(holders[port], ("port %s given to children %s and %d"):format(port, holders[port], i))
        holders[port], n = i, n + 1
      end
    end
    assert.equal(60, n)
  end)

  it("prints as its range and what it holds", function()
    local alloc = allocator { from = 20000, to = 30000 }
    assert(alloc:allocate(LOCAL, "a"))
    assert.equal("port allocator (20000-30000, 1 held)", tostring(alloc))
  end)

  for _, case in ipairs {
    { "a range that runs backwards", { from = 30000, to = 20000 }, "the range 30000-20000 must lie within 1-65535 and not run backwards" },
    { "a range beyond the last port", { to = 65536 }, "the range 20000-65536 must lie within 1-65535" },
    { "a range from port 0", { from = 0 }, "the range 0-60000 must lie within 1-65535" },
    { "a fraction", { from = 20000.5 }, "'from' must be an integer, not 20000.5" },
    { "a text", { seed = "x" }, "'seed' must be an integer, not x" },
  } do
    local what, options, message = table.unpack(case)
    it("refuses " .. what .. " as an option", function()
      assert.error_matches(function() ports.new(options) end, message, 1, true)
    end)
  end
end)
