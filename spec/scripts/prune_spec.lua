-- scripts/prune.lua, on an engine of its own: without --label it removes everything that it finds.
local containers = require "spec.scripts.containers"
local dockrun = require "dockrun"
local engine = require "spec.engine"
local process = require "spec.process"

describe("prune.lua", function()
  local own, set

  setup(function() own = engine.start() end)
  teardown(function() own:stop() end)
  before_each(function() set = containers.new(own) end)
  after_each(function()
    set:close()
    for _, image in ipairs(assert(set.engine:image_list())) do set.engine:image_remove(image.Id, { force = true }) end
  end)

  -- The output of prune.lua, sorted, without the label that begins the containers' names.
  local function prune(opts, ...)
    local result = process.run(set:script("prune.lua", ...), opts)
    assert.equal(0, result.code, result.stderr)
    assert.equal("", result.stderr)
    local lines = {}
    for line in result.stdout:gmatch "[^\n]+" do lines[#lines + 1] = line:gsub(set.label .. "_", "") end
    table.sort(lines)
    return lines
  end

  local function has_image(ref) return set.engine:image_inspect(ref) ~= nil end
  local function labelled(label) return { changes = { ("LABEL %s=yes"):format(label) } } end

  it("removes stopped containers and unused images, and --dry-run lists exactly those", function()
    local ended, created = set:run_to_end("ended", "exit 3"), set:create("created", "true")
    local running = set:run("running", "exec sleep 600")
    engine.image(own, "unused:1")
    assert(set.engine:image_tag("unused:1", { repo = "also.example/unused", tag = "2" }))
    engine.image(own, "of-the-ended:1")
    local user = set:run_to_end("user", "true", { Image = "of-the-ended:1" })
    local nameless = engine.image(own, "nameless:1")
    engine.image(own, "nameless:1", {})  -- removes the name from the older image
    assert(set.engine:image_remove "nameless:1")

    local planned = prune({}, "--dry-run", "0s")
    assert.same({
      "would remove container created", "would remove container ended", "would remove container user",
      "would remove image also.example/unused:2", "would remove image of-the-ended:1", "would remove image " .. nameless,
      "would remove image unused:1",
    }, planned)
    for _, id in ipairs { ended, created, user, running } do assert.is_true(set:has(id)) end
    for _, ref in ipairs { "unused:1", "also.example/unused:2", "of-the-ended:1", nameless } do assert.is_true(has_image(ref)) end

    for i, line in ipairs(planned) do planned[i] = line:gsub("^would remove", "removed") end
    assert.same(planned, prune({}, "0s"))
    for _, id in ipairs { ended, created, user } do assert.is_false(set:has(id)) end
    for _, ref in ipairs { "unused:1", "also.example/unused:2", "of-the-ended:1", nameless } do assert.is_false(has_image(ref)) end
    assert.is_true(set:state(running).Running)
    assert.is_true(has_image(containers.image))
  end)

  it("removes only items that are old enough", function()
    local old = set:run_to_end("old", "true")
    local ended = dockrun.now()
    dockrun.sleep(6)
    local young = set:run_to_end("young", "true")
    local age = ("%ds"):format(math.floor(dockrun.now() - ended))
    assert.same({ "removed container old" }, prune({}, "--containers", age))
    assert.is_false(set:has(old))
    assert.is_true(set:has(young))
  end)

  for _, zone in ipairs { "WEST+12", "EAST-14", "SUMMER+5WINTER,0,365" } do
    it("computes ages the same way in the time zone " .. zone, function()
      set:run_to_end("ended", "true")
      engine.image(own, "unused:1")
      local opts = { env = { TZ = zone } }
      assert.same({}, prune(opts, "--dry-run", "30m"))
      assert.same({ "would remove container ended", "would remove image busybox:1", "would remove image unused:1" },
        prune(opts, "--dry-run", "0"))
    end)
  end

  it("removes a container's anonymous volumes with it", function()
    set:run_to_end("ended", "true", { Volumes = { ["/data"] = {} } })
    assert.equal(1, #set.engine:volume_list().Volumes)
    prune({}, "--containers", "0s")
    assert.equal(0, #(set.engine:volume_list().Volumes or {}))
  end)

  it("removes only containers, or only images, if an option says so", function()
    local ended = set:run_to_end("ended", "true")
    engine.image(own, "unused:1")
    assert.same({ "would remove container ended" }, prune({}, "-n", "--containers", "0s"))
    -- The ended container stays, and needs its image.
    assert.same({ "removed image unused:1" }, prune({}, "--images", "0s"))
    assert.is_true(set:has(ended))
    assert.same({ "removed container ended", "removed image busybox:1" }, prune({}, "--containers", "--images", "0s"))
  end)

  it("removes only items with the given label", function()
    engine.image(own, "blue:1", labelled "colour")
    engine.image(own, "plain:1")
    local blue = set:run_to_end("blue", "true", { Labels = { [set.label] = "", colour = "yes" } })
    local plain = set:run_to_end("plain", "true")
    assert.same({}, prune({}, "--label", "colour=no", "0s"))
    assert.same({ "removed container blue", "removed image blue:1" }, prune({}, "--label", "colour", "0s"))
    assert.is_false(set:has(blue))
    assert.is_true(set:has(plain))
    assert.is_true(has_image "plain:1")
  end)

  for _, case in ipairs {
    { "no age", {}, "missing argument 'age'" },
    { "an invalid age", { "old" }, "'old'" },
    { "an unknown option", { "--force", "1h" }, "unknown option '--force'" },
  } do
    local what, args, message = table.unpack(case)
    it("refuses " .. what, function()
      local result = process.run(set:script("prune.lua", table.unpack(args)))
      assert.equal(2, result.code)
      assert.matches(message, result.stderr, 1, true)
    end)
  end

  it("reports an engine that is not there", function()
    local result = process.run { "--endpoint", "unix:///nowhere/docker.sock", "scripts/prune.lua", "1h" }
    assert.equal(1, result.code)
    assert.matches("/nowhere/docker.sock", result.stderr, 1, true)
  end)
end)
