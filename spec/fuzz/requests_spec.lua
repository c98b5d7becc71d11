-- Fuzzes the requests on the socket of an agent: it answers each with an error or not at all, and continues.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local process = require "spec.process"
local randoms = require "spec.fuzz.random"
local states = require "spec.states"
local uv = require "luv"

local CASES, TOGETHER = 400, 8

local function any_value(r, depth)
  return r:pick {
    function() return r:text() end, function() return r:int(0, 1000 - 1) - 500 end, function() return true end,
    function() return dockrun.json.null end, function() return ("x"):rep(r:int(0, 100000 - 1)) end,
    function() return depth < 4 and dockrun.json.array { any_value(r, depth + 1), any_value(r, depth + 1) } or 1 end,
    function() return depth < 4 and { [r:text(2)] = any_value(r, depth + 1), source = any_value(r, depth + 1) } or "" end,
  }()
end

local function request(r)
  return {
    source = { format = "hcl", name = "fuzz", text = 'job "fuzz" {}', vars = { a = "b" } },
    reason = r:one_in(2) and "fuzz" or nil,
  }
end

-- A request with one change.
local function damaged_request(r)
  local made = request(r)
  local holder = r:one_in(3) and made or made.source
  local key = r:pick(holder == made and { "source", "reason", "other" } or { "format", "name", "text", "vars", "other" })
  holder[key] = not r:one_in(5) and any_value(r, 1) or nil
  return dockrun.json.encode(made) .. "\n"
end

local function damaged_text(r)
  local text = dockrun.json.encode(request(r)) .. "\n"
  for _ = 1, 1 + r:int(0, 4 - 1) do
    local at = 1 + r:int(0, #text - 1)
    text = text:sub(1, at - 1) .. r:pick { "", string.char(r:int(0, 256 - 1)), "\0", "\n", "{", "]", '"', "\u{fffd}" } .. text:sub(at + 1)
  end
  return text
end

local writers = {
  damaged_request, damaged_request, damaged_text, damaged_text,
  function(r) return ("["):rep(r:int(0, 200000 - 1)) .. "\n" end,
  function(r) return ('{"source":'):rep(r:int(0, 50000 - 1)) .. "\n" end,
  function(r) return ("x"):rep(r:int(0, 1 << 20 - 1)) end,
  function(r) return ("\n"):rep(1 + r:int(0, 100 - 1)) end,
  function() return "" end,
  function(r) return dockrun.json.encode(any_value(r, 0)) .. "\n" end,
}

-- Sends a text, closes the sending half if it is not a whole line, and returns the response.
local function ask(path, text, gone)
  local pipe, pieces, answer = uv.new_pipe(), dockrun.queue(), ""
  pipe:connect(path, function(why) pieces:push(why or true) end)
  assert.is_true(pieces:pop(30))
  pipe:read_start(function(_, data) pieces:push(data or false) end)
  pipe:write(text)
  if gone then
    pipe:close()
    return ""
  end
  if not text:find "\n" then pipe:shutdown() end
  for piece in function() return pieces:pop(60) or nil end do answer = answer .. piece end
  pipe:close()
  return answer
end

local function check(answer, text)
  if answer == "" then return end
  local read = dockrun.json.decode(answer)
  assert.is_table(read, answer)
  local kind = read.error and read.error.kind
  assert.truthy(read.failures or kind, answer)
  assert.not_equal("internal", kind, ("%s\n%s"):format(answer, text:sub(1, 500)))
end

describe("a request to the agent", function()
  local endpoint

  setup(function() endpoint = select(2, engines.ready()) end)
  before_each(states.begin)
  after_each(states.finish)

  it("of any kind ends in an answer, an error or nothing, and the agent continues", function()
    local agent <close> = process.start({ "agent", "--endpoint", endpoint, "--state-dir", states.dir })
    agent:wait_for "watching "
    local path
    repeat
      local entries = uv.fs_scandir(states.dir .. "/jobs")
      local entry = entries and uv.fs_scandir_next(entries)
      while entry and uv.fs_scandir_next(entries) do end
      path = entry and ("%s/jobs/%s"):format(states.dir, entry)
      dockrun.sleep(0.01)
    until path
    local lanes = {}
    for lane = 1, TOGETHER do
      lanes[lane] = function()
        for seed = lane, CASES, TOGETHER do
          local r = randoms.new(seed)
          local text = r:pick(writers)(r)
          local ok, why = pcall(function() check(ask(path, text, r:one_in(10)), text) end)
          if not ok then error(("seed %d: %s"):format(seed, tostring(type(why) == "table" and why.message or why)), 0) end
        end
      end
    end
    dockrun.all(lanes)
    assert.matches('"failures":', ask(path, dockrun.json.encode(request(randoms.new(1))) .. "\n"))
    agent:kill "SIGTERM"
    local result = agent:wait()
    assert.equal(0, result.code, result.stderr)
    assert.is_nil(result.stderr:find("traceback", 1, true), result.stderr)
  end)
end)
