-- A job on Podman, from its start to its end. spec/driver/podman_spec.lua tests each difference from Docker.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"

describe("a job on Podman", function()
  local podman, endpoint

  setup(function()
    podman = process.start({}, { program = "scripts/podman", timeout = 120 })
    endpoint = podman:wait_for "(unix://%S+)\n"
    engines.image({ endpoint = endpoint }, "docker.io/library/busybox:1")
    local engine = assert(dockrun.connect { endpoint = endpoint })
    -- Podman's import leaves the tag out.
    assert(engine:image_tag("docker.io/library/busybox:latest", { repo = "docker.io/library/busybox", tag = "1" }))
  end)

  teardown(function()
    podman:kill "SIGTERM"
    podman:wait()
  end)

  local function text(name, memory)
    return jobs.text {
      name = name, image = "busybox:1", command = "trap 'sleep 2; exit 7' TERM; echo ready; while :; do sleep 0.1; done",
      resources = "memory = " .. memory, task = "kill_timeout = '30s',",
    }:gsub('kill_timeout = "1s",', "")
  end

  local function run(words) return jobs.dockrun(endpoint, words, { timeout = 120 }) end

  it("runs, is replaced for other limits, and ends within its grace period", function()
    local name = jobs.unique "podman"
    local first, file = jobs.write((text(name, 64)))
    local second, other = jobs.write((text(name, 96)))
    local _ <close> = file
    local _ <close> = other
    local result = run { "run", "-d", first }
    assert.equal(0, result.code, result.stderr)
    assert.equal(0, run({ "plan", first }).code)
    result = run { "plan", second }
    assert.equal(1, result.code, result.stderr)
    assert.matches("replace (this engine cannot change the limits of a running container)", result.stdout, 1, true)
    result = run { "run", "-d", second }
    assert.equal(0, result.code, result.stderr)
    assert.matches("exited  exit code 7", result.stderr, 1, true) -- it had its grace period
    result = run { "stop", name }
    assert.equal(0, result.code, result.stderr)
    assert.matches("exited  exit code 7", result.stderr, 1, true)
    assert.same({}, jobs.containers(assert(dockrun.connect { endpoint = endpoint }), name))
  end)

  it("has the exit code of its task, and its output", function()
    local result = jobs.run(endpoint, jobs.text { name = jobs.unique "podman", image = "busybox:1", command = "echo hello; exit 3" })
    assert.same({ 1, 3 }, { result.code, result.by.exited and result.by.exited.exit_code }, result.stderr)
  end)
end)
