local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"
local uv = require "luv"

describe("an allocation's directories", function()
  local engine, endpoint

  setup(function() engine, endpoint = engines.ready() end)

  local function root_of(started) return ("%s/alloc/%s"):format(jobs.state_dir, started.alloc) end

  it("are there to write to, whoever the container's user is, and gone with the task", function()
    local result = jobs.run(endpoint, jobs.text {
      name = jobs.unique "dirs", image = "busybox:1",
      command = "cd $NOMAD_ALLOC_DIR && touch data/a logs/b tmp/c && touch $NOMAD_TASK_DIR/d $NOMAD_SECRETS_DIR/e && "
        .. "ln -s / $NOMAD_TASK_DIR/root && grep -q ' /secrets tmpfs' /proc/mounts && exit 4",
      task = "hooks = { create = function(_, body) body.User = 'nobody' end },",
    })
    assert.equal(4, result.by.exited.exit_code)
    assert.is_nil((uv.fs_stat(root_of(result.by.started))))
    assert.truthy(uv.fs_stat "/etc/passwd", "a link in the directory was followed")
  end)

  it("are shared by the tasks of a group: /alloc is one, /local and /secrets are each task's own", function()
    local result = jobs.run(endpoint, ([[
local function task_of(name, command)
  return task(name) { driver = "docker", config = { image = "busybox:1", command = "sh", args = { "-c", command } }, kill_timeout = 1,
    resources = { memory = 32 } }
end
return job %q {
  type = "batch",
  group "g" {
    task_of("writer", "echo 7 > /alloc/data/n.new; mv /alloc/data/n.new /alloc/data/n; touch /local/mine; " ..
      "until test -e /alloc/read; do sleep 0.1; done"),
    task_of("reader", "until test -e /alloc/data/n; do sleep 0.1; done; " ..
      "test ! -e /local/mine && test $(cat /alloc/data/n) = 7; code=$?; touch /alloc/read; exit $code"),
  },
}]]):format(jobs.unique "shared"))
    local codes = {}
    for _, event in ipairs(result.events) do
      if event.event == "exited" then codes[event.task] = event.exit_code end
    end
    assert.same({ writer = 0, reader = 0 }, codes)
    assert.is_nil((uv.fs_stat(root_of(result.by.started))))
  end)

  it("stay with a detached task and go with `dockrun stop`", function()
    local name = jobs.unique "detached"
    local path, file = jobs.write(jobs.text { name = name, image = "busybox:1", command = "touch /local/x; sleep 600" })
    local _ <close> = file
    assert.equal(0, process.run({ "run", "-d", "--endpoint", endpoint, "--state-dir", jobs.state_dir, path }).code)
    local container = jobs.containers(engine, name)[1]
    local root = container.Labels["dockrun.alloc_dir"]
    assert.equal("directory", uv.fs_stat(root).type)
    assert.equal(0, jobs.dockrun(endpoint, { "stop", name }).code)
    assert.is_nil((uv.fs_stat(root)))
  end)

  it("go with the task, however deep and wide it nested directories, and whatever it left in them", function()
    local result = jobs.run(endpoint, jobs.text {
      name = jobs.unique "deep", image = "busybox:1",
      command = [[cd /alloc/data; name=$(printf %0200d 0); mkdir go
for i in $(seq 40); do mkdir n; mkfifo n/p; ln -s / n/l; mv go n/$name; mv n go; done
mkdir -p $(seq -f w/%g/a 1000); chmod 0 w/7; exit 4]],
    })
    assert.equal(4, result.by.exited.exit_code)
    assert.is_nil(result.by.failed and result.by.failed.message:find "clean" or nil)
    local _, _, code = uv.fs_lstat(root_of(result.by.started))
    assert.equal("ENOENT", code)
  end)

  it("leave nothing of a task that never started", function()
    local result = jobs.run(endpoint, jobs.text { name = jobs.unique "failed", image = "127.0.0.1:1/none:1", command = "true" })
    assert.equal(1, result.code)
    assert.is_nil((uv.fs_stat(root_of(result.by.failed))))
  end)

  it("that cannot be made keep the job from beginning, naming the directory", function()
    local result = jobs.run(endpoint, jobs.text { name = jobs.unique "failed", image = "busybox:1", command = "true" },
      { "--state-dir", "/proc/no" })
    assert.equal(1, result.code)
    assert.truthy(result.stderr:find("/proc/no", 1, true), result.stderr)
    assert.same({}, result.events)
  end)
end)
