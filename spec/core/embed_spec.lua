-- A host program's calls do not meddle with each other.
local hosts = require "spec.host"
local uv = require "luv"

-- What every program here begins with: call(d, CODE) prints its results or its error.
local HEAD = [[
  #include <dockrun.h>
  #include <lauxlib.h>
  #include <stdio.h>
  #include <stdlib.h>
  #include <string.h>

  static dockrun *d;

  static void call(const char *code) {
    lua_State *L = dockrun_lua(d);
    int top = lua_gettop(L);
    if (luaL_loadstring(L, code) != LUA_OK) abort();
    int status = dockrun_call(d, 0);
    if (status != LUA_OK) lua_settop(L, top + 1), printf("failed: ");
    for (int i = top + 1; i <= lua_gettop(L); i++) printf("%s\n", luaL_tolstring(L, i, NULL)), lua_pop(L, 1);
    lua_settop(L, top);
    fflush(stdout);
  }

  #define RUN(...) do { \
    char *words[] = {"dockrun", __VA_ARGS__}; \
    int code = dockrun_run(d, sizeof words / sizeof *words, words); \
    printf("exit %d\n", code); \
    fflush(stdout); \
  } while (0)

  static int l_ask(lua_State *L) {
    call(luaL_checkstring(L, 1));
    return 0;
  }

  static void open(void) {
    char why[256];
    d = dockrun_open(why, sizeof why);
    if (!d) puts(why), exit(1);
    lua_register(dockrun_lua(d), "ask", l_ask);
  }
]]

describe("a host program", function()
  local installed

  setup(function() installed = hosts.install() end)
  teardown(function() installed:close() end)

  local function output_of(main, args, env)
    local result = installed:run_c(HEAD .. main, args, env)
    assert.equal(0, result.code, result.stdout .. result.stderr)
    return result.stdout
  end

  it("ends what a call has started, and nothing else", function()
    assert.equal([[
asked
watched
watcher goes on
spawned by the call: ended
asked again
outer goes on
in a fiber
callback goes on
failed: cannot run here, inside of a callback of the loop; use spawn()
watcher ended
]], output_of [==[
      int main(void) {
        open();
        lua_State *L = dockrun_lua(d);
        // A watcher that belongs to no call.
        if (luaL_dostring(L, "dockrun = require 'dockrun' requests = dockrun.queue() "
                             "watcher = dockrun.spawn(function() while true do "
                             "  local request = requests:pop() if request == 'end' then return end request:push 'watched' "
                             "end end)") != LUA_OK) return puts(lua_tostring(L, -1)), 1;
        call("return 'asked'");
        call("local answer = dockrun.queue() requests:push(answer) return answer:pop()");
        call("return watcher:status() == 'waiting' and 'watcher goes on' or watcher:status()");
        call("dockrun.spawn(function() "
             "  local _ <close> = setmetatable({}, { __close = function() print 'spawned by the call: ended' end }) "
             "  dockrun.sleep(600) end) dockrun.sleep(0)");
        // A call within a call, with a fiber beside it; one within a fiber.
        call("local neighbour = dockrun.spawn(function() dockrun.sleep(600) end) dockrun.sleep(0) "
             "ask [[return 'asked again']] "
             "print(neighbour:status() == 'waiting' and 'outer goes on' or neighbour:status()) "
             "dockrun.spawn(function() ask [[dockrun.spawn(dockrun.sleep, 600) dockrun.sleep(0) return 'in a fiber']] end):await() "
             "assert(neighbour:status() == 'waiting')");
        // What a callback of the outer call does, while the inner one ends.
        call("local uv, go, done = require 'luv', dockrun.queue(), dockrun.queue() local timer = uv.new_timer() "
             "timer:start(0, 0, function() timer:close() go:pop() done:push 'callback goes on' end) "
             "ask [[dockrun.sleep(0.02)]] go:push(true) print(done:pop())");
        call("local uv, done = require 'luv', dockrun.queue() local timer = uv.new_timer() "
             "timer:start(0, 0, function() timer:close() ask [[return 1]] done:push(true) end) done:pop()");
        call("requests:push 'end' watcher:await() return 'watcher ended'");
        dockrun_close(d);
      }
    ]==])
  end)

  it("gives each run of the command options of its own", function()
    local missing = "unix:///nonexistent/a.sock"
    assert.equal([==[
unix:///mine 60	nil
unix:///nonexistent/a.sock 7	1
exit 0
unix:///mine 60	nil
unix:///nonexistent/a.sock 60	0
exit 0
exit 3
unix:///mine 60	0
exit 0
unix:///mine 60	nil
]==], output_of([==[
      #define SHOW "local o = require 'dockrun'.options print(o['docker.endpoint'] .. ' ' .. o['docker.timeout'], arg and #arg)"
      int main(int argc, char **argv) {
        open();
        call("options = require 'dockrun'.options options['docker.endpoint'] = 'unix:///mine'");
        call(SHOW);
        RUN("--endpoint", argv[1], "--set", "docker.timeout=7", "-e", SHOW, "an argument");
        call(SHOW);
        // What the host made before has the host's options meanwhile.
        RUN("--endpoint", argv[1], "-e", "assert(options['docker.endpoint'] == 'unix:///mine') " SHOW);
        RUN("--endpoint", argv[1], "status");
        RUN("-e", SHOW);
        call(SHOW);
        dockrun_close(d);
      }
    ]==], { missing }))
  end)

  it("has a runtime that a child of fork() can only free", function()
    assert.equal([==[
failed: this runtime belongs to the process that forked this one; open another one here
failed: this runtime belongs to the process that forked this one; open another one here
exit 4
catch -1
child 0
the parent hears
]==], output_of [==[
      #include <sys/wait.h>
      #include <unistd.h>
      int main(void) {
        open();
        lua_State *L = dockrun_lua(d);
        if (luaL_dostring(L, "uv = require 'luv' path = os.tmpname() os.remove(path) server = uv.new_pipe() server:bind(path) "
                             "heard = require 'dockrun'.queue() server:listen(8, function() heard:push(true) end)") != LUA_OK)
          return puts(lua_tostring(L, -1)), 1;
        call("require 'dockrun'.sleep(0.01)");
        pid_t child = fork();
        if (!child) {
          call("return 1");
          if (luaL_dostring(L, "require 'dockrun'.sleep(0.01)") != LUA_OK)
            printf("failed: %s\n", strstr(lua_tostring(L, -1), "this runtime"));
          fflush(stdout);
          RUN("-e", "print 'ran'");
          printf("catch %d\n", dockrun_catch_signals(d));
          fflush(stdout);
          dockrun_close(d);
          _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        printf("child %d\n", status);
        call("local client = uv.new_pipe() client:connect(path) return heard:pop(10) and 'the parent hears' or 'the parent is deaf'");
        dockrun_close(d);
      }
    ]==])
  end)

  -- The programs are told apart by what they do: a credential helper, and an ssh that ends.
  it("keeps its SIGCHLD handler, or blocks or ignores the signal, while dockrun runs programs", function()
    local dir = installed.dir
    for name, text in pairs {
      ["docker-credential-spec"] = [[read -r server; echo '{"Username":"helper","Secret":"'"$server"'"}']],
      ["ssh-that-ends"] = "exit 7",
      ["docker-credential-broken"] = "exit 3",
    } do
      local file <close> = assert(io.open(dir .. "/" .. name, "w"))
      file:write("#!/bin/sh\n", text, "\n")
      assert(uv.fs_chmod(dir .. "/" .. name, tonumber("755", 8)))
    end
    -- Either the handler or dockrun is first to collect what has ended.
    local function without_codes(text)
      return (text:gsub("it gave no secret", "it FAILED"):gsub("it ended with 3", "it FAILED"):gsub("exit code %w+", "exit code CODE"))
    end
    local output = output_of([==[
      #include <errno.h>
      #include <signal.h>
      #include <sys/wait.h>
      static volatile sig_atomic_t handled, reaps;
      static void on_child(int signal) {
        int saved = errno;
        handled = signal;
        while (reaps && waitpid(-1, NULL, WNOHANG) > 0) {}
        errno = saved;
      }
      static void run_programs(const char *how) {
        printf("%s: ", how);
        call("local set = require 'dockrun.options'.new() set['docker.auth.helper'] = 'spec' "
             "local find = require 'dockrun.driver.credentials'.find "
             "local found, err = find('x.example/y', nil, set) "
             "print(found and found.username .. ' ' .. found.password or err) "
             "set['docker.auth.helper'] = 'broken' print(select(2, find('x.example/y', nil, set))) "
             "local options = require 'dockrun'.options options['docker.ssh'] = { arg1 } "
             "print(select(2, require 'dockrun'.connect { endpoint = 'ssh://host' }))");
      }
      int main(int argc, char **argv) {
        open();
        lua_pushstring(dockrun_lua(d), argv[1]);
        lua_setglobal(dockrun_lua(d), "arg1");
        struct sigaction action = {.sa_handler = on_child}, found;
        sigset_t child;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        sigaction(SIGCHLD, &action, NULL);
        run_programs("handled");
        sigaction(SIGCHLD, NULL, &found);
        if (handled && found.sa_handler == on_child) puts("the handler was called and is in place");
        reaps = 1;
        run_programs("reaped");
        sigprocmask(SIG_BLOCK, &child, NULL);
        run_programs("blocked");
        sigprocmask(SIG_UNBLOCK, &child, NULL);
        signal(SIGCHLD, SIG_IGN);
        run_programs("ignored");
        if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD) puts("no child is left");
        dockrun_close(d);
      }
    ]==], { dir .. "/ssh-that-ends" }, { PATH = dir .. ":" .. os.getenv "PATH", DOCKER_CONFIG = dir })
    output = output:gsub("reaped: .-\nblocked", without_codes)
    assert.equal([==[
handled: helper x.example
credentials: docker-credential-broken: it ended with 3 for x.example
cannot reach the Docker engine at ssh://host: ssh ended with exit code 7
the handler was called and is in place
reaped: helper x.example
credentials: docker-credential-broken: it FAILED for x.example
cannot reach the Docker engine at ssh://host: ssh ended with exit code CODE
blocked: helper x.example
credentials: docker-credential-broken: it ended with 3 for x.example
cannot reach the Docker engine at ssh://host: ssh ended with exit code 7
ignored: helper x.example
credentials: docker-credential-broken: it gave no secret for x.example
cannot reach the Docker engine at ssh://host: ssh ended with exit code unknown
no child is left
]==], output)
  end)

  -- The host stands before libuv: each look at a clock is followed by a pause, as on a busy machine.
  it("wakes from a short sleep though it is held just when that begins", function()
    assert.equal("awake\n", output_of [==[
      #include <dlfcn.h>
      #include <stdint.h>
      #include <unistd.h>

      uint64_t uv_hrtime(void) {
        uint64_t time = ((uint64_t (*)(void))dlsym(RTLD_NEXT, "uv_hrtime"))();
        usleep(5000);
        return time;
      }

      void uv_update_time(void *loop) {
        ((void (*)(void *))dlsym(RTLD_NEXT, "uv_update_time"))(loop);
        usleep(5000);
      }

      int main(void) {
        open();
        call("local dockrun = require 'dockrun' for _ = 1, 3 do dockrun.sleep(0.0004) end return 'awake'");
        dockrun_close(d);
      }
    ]==])
  end)
end)
