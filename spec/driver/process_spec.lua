-- Programs of this host, on kernels that know less of descriptors of processes than this one.
local pl_dir = require "pl.dir"
local process = require "spec.process"
local uv = require "luv"

-- Runs a program on a kernel without pidfd_open and pidfd_send_signal (before 5.3), or without waitid's P_PIDFD (5.3).
local OLDER = [[
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(value, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, n)
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, value)
int main(int argc, char **argv) {
  struct sock_filter none[] = {
      LOAD(nr), UNLESS(SYS_pidfd_open, 1), ANSWER(SECCOMP_RET_ERRNO | ENOSYS),
      UNLESS(SYS_pidfd_send_signal, 1), ANSWER(SECCOMP_RET_ERRNO | ENOSYS), ANSWER(SECCOMP_RET_ALLOW)};
  struct sock_filter no_wait[] = {
      LOAD(nr), UNLESS(SYS_waitid, 3), LOAD(args[0]), UNLESS(P_PIDFD, 1), ANSWER(SECCOMP_RET_ERRNO | EINVAL),
      ANSWER(SECCOMP_RET_ALLOW)};
  int is_without = !strcmp(argv[1], "before 5.3");
  struct sock_fprog program = {is_without ? sizeof none / sizeof *none : sizeof no_wait / sizeof *no_wait,
                               is_without ? none : no_wait};
  if (argc < 3 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 99;
  execvp(argv[2], argv + 2);
  perror(argv[2]);
  return 98;
}]]

local SCRIPT = [[
local core = require "dockrun.core.process"
local dockrun = require "dockrun"
local process = require "dockrun.driver.process"
local uv = require "luv"
local function show(result, err) print(result and result.code or "no code", result and result.output or err.kind) end
local probe <close> = assert(core.start { "true" })
print(probe:fd() ~= nil)
show(process.run({ "sh", "-c", "cat; exit 7" }, "input", 60))
show(process.run({ "sh", "-c", "kill -KILL $$" }, "", 60))
show(process.run({ "true" }, "", 60))
show(process.run({ "/nonesuch/program" }, "", 60))
-- Killed at its time-out, and collected.
local file = os.tmpname()
show(process.run({ "sh", "-c", 'echo $$ > "$1"; exec sleep 600', "-", file }, "", 1))
local pid
for line in io.lines(file) do pid = math.tointeger(line) end
os.remove(file)
local deadline = dockrun.now() + 60
while uv.kill(pid, 0) == 0 and dockrun.now() < deadline do dockrun.sleep(0.02) end
print(select(3, uv.kill(pid, 0)))
-- Several at once, whose ends are told apart.
local codes, all = {}, {}
for i = 1, 8 do all[i] = function() codes[i] = process.run({ "sh", "-c", "sleep 0." .. 9 - i .. "; exit " .. i }, "", 60).code end end
dockrun.all(all)
print(table.concat(codes, " "))
]]

local EXPECTED = "7\tinput\n137\t\n0\t\nno code\tsystem\nno code\ttimeout\nESRCH\n1 2 3 4 5 6 7 8\n"

describe("programs of this host", function()
  local dir, older

  setup(function()
    dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX"))
    older = dir .. "/older"
    local result = process.run({ "-x", "c", "-Wall", "-Werror", "-o", older, "-" }, { program = "gcc", stdin = OLDER })
    assert(result.code == 0, result.stderr)
  end)

  teardown(function() pl_dir.rmtree(dir) end)

  for kernel, has_descriptor in pairs { ["before 5.3"] = false, ["5.3"] = true } do
    it("run, end and are killed on a kernel " .. kernel, function()
      local result = process.run({ kernel, process.program, "-e", SCRIPT }, { program = older })
      assert.equal(("%s\n%s"):format(has_descriptor, EXPECTED), result.stdout, result.stderr)
      assert.equal(0, result.code, result.stderr)
    end)
  end

  it("run, end and are killed on this kernel", function()
    local result = process.run { "-e", SCRIPT }
    assert.equal(EXPECTED, result.stdout:gsub("^%a+\n", ""), result.stderr)
  end)
end)
