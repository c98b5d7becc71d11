-- Job files that are not regular files: a pipe can carry a job, and a signal ends the wait for it.
local jobs = require "spec.jobs"
local process = require "spec.process"
local uv = require "luv"

local JOB = '{"job":{"piped":{}}}'

describe("a job file", function()
  local base

  before_each(function() base = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX")) end)
  after_each(function() process.run({ "-rf", base }, { program = "rm" }) end)

  local function fifo(name)
    local path = base .. "/" .. name
    assert.equal(0, process.run({ path }, { program = "mkfifo" }).code)
    return path
  end

  it("may be a pipe whose writer opens it late and writes in small pieces", function()
    local path = fifo "job.json"
    local child <close> = process.start { "validate", path }
    local writer <close> = process.start({ "-c", ([[exec >%s; printf '{"job":'; sleep 0.2; printf '{"piped":{}}}']]):format(path) },
      { program = "sh" })
    assert.equal(0, writer:wait().code)
    local result = child:wait()
    assert.same({ 0, path .. ": ok (job 'piped', 0 groups)\n" }, { result.code, result.stdout })
  end)

  it("may be a pipe that the shell makes", function()
    local path = base .. "/stdin.json"
    assert(uv.fs_symlink("/dev/fd/0", path))
    assert.equal(0, process.run({ "-c", ("echo '%s' | %s validate %s"):format(JOB, process.program, path) }, { program = "sh" }).code)
  end)

  it("has a size limit, even if it never ends", function()
    local path = base .. "/zero.json"
    assert(uv.fs_symlink("/dev/zero", path))
    local result = process.run { "validate", path }
    assert.equal(2, result.code)
    assert.truthy(result.stderr:find("a job file must have at most 8388608 bytes", 1, true), result.stderr)
  end)

  it("is refused if it is a directory", function()
    local path = base .. "/d.lua"
    assert(uv.fs_mkdir(path, 493))
    local result = process.run { "validate", path }
    assert.same({ 2, ("dockrun: error: cannot read the job: %s: is a directory\n"):format(path) }, { result.code, result.stderr })
  end)

  for signal, code in pairs { SIGINT = 130, SIGTERM = 130 } do
    for what, words in pairs {
      validate = { "validate" }, plan = { "plan" }, run = { "run" }, ["run --hooks"] = { "run", "--hooks" },
      ["fingerprint --config"] = { "fingerprint", "--config" },
    } do
      it(("is no longer waited for by `%s` after %s"):format(what, signal), function()
        local path = fifo "never.lua"
        local rest = words[2] == "--hooks" and jobs.write(jobs.text { name = "x", image = "busybox:1", command = "true" }) or nil
        local child <close> = process.start { words[1], "--state-dir", base .. "/state", words[2] or path, words[2] and path, rest }
        -- dockrun has opened the pipe as soon as a writer can open it without waiting for a reader.
        local opened <close> = process.start({ "-c", ("exec 3>%s; echo open; sleep 60"):format(path) }, { program = "sh" })
        opened:wait_for "open"
        child:kill(signal)
        local result = child:wait()
        assert.same({ code }, { result.code, result.signal })
        if rest then os.remove(rest) end
      end)
    end
  end
end)
