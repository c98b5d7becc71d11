-- dockrun as users build it: each build type with each compiler, and as a part of a host program's build.
local pl_dir = require "pl.dir"
local process = require "spec.process"
local uv = require "luv"

describe("a build", function()
  local dir

  before_each(function() dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-build-XXXXXX")) end)
  after_each(function() pl_dir.rmtree(dir) end)

  local function run(program, ...)
    local result = process.run({ ... }, { program = program, timeout = 1800, env = { DOCKRUN_LUA_PATH = uv.cwd() .. "/lua" } })
    assert.equal(0, result.code, result.stdout .. result.stderr)
    return result.stdout
  end

  local function build(source, compiler, kind)
    run("cmake", "-S", source, "-B", dir .. "/build", "-G", "Ninja", "-DCMAKE_C_COMPILER=" .. compiler, "-DCMAKE_BUILD_TYPE=" .. kind)
    run("cmake", "--build", dir .. "/build")
  end

  for _, compiler in ipairs { "gcc", "clang" } do
    for _, kind in ipairs { "", "Debug", "Release", "RelWithDebInfo", "MinSizeRel" } do
      it(("of type '%s' with %s runs, and is hardened if it is a release"):format(kind, compiler), function()
        build(uv.cwd(), compiler, kind)
        assert.matches("^dockrun ", run(dir .. "/build/dockrun", "version"))
        if kind:find "Rel" or kind == "MinSizeRel" then
          run("scripts/hardened", dir .. "/build/dockrun", dir .. "/build/libdockrun.so")
        end
      end)
    end
  end

  local function write(name, text)
    local file <close> = assert(io.open(dir .. "/" .. name, "w"))
    file:write(text)
  end

  it("of a host with add_subdirectory gets the library and its public header, and no other header", function()
    write("CMakeLists.txt", ([[
cmake_minimum_required(VERSION 3.25)
project(host LANGUAGES C)
add_library(core INTERFACE)
add_subdirectory(%s dockrun)
add_executable(host main.c)
target_link_libraries(host PRIVATE core libdockrun)
]]):format(uv.cwd()))
    write("main.c", [[
#include <dockrun.h>
#include <limits.h>
#include <stdio.h>
#ifdef DOCKRUN_LIMITS_H
#error "limits.h is dockrun's"
#endif
int main(void) { return printf("%d\n", CHAR_BIT) < 0; }
]])
    build(dir, "gcc", "Release")
    assert.equal("8\n", run(dir .. "/build/host"))
  end)
end)
