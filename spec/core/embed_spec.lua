-- A host program's calls do not meddle with each other.
local hosts = require "spec.host"

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

  local function output_of(main, args)
    local result = installed:run_c(HEAD .. main, args)
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
in a task
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
        // A call within a call, with a task beside it; one within a task.
        call("local neighbour = dockrun.spawn(function() dockrun.sleep(600) end) dockrun.sleep(0) "
             "ask [[return 'asked again']] "
             "print(neighbour:status() == 'waiting' and 'outer goes on' or neighbour:status()) "
             "dockrun.spawn(function() ask [[dockrun.spawn(dockrun.sleep, 600) dockrun.sleep(0) return 'in a task']] end):await() "
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
end)
