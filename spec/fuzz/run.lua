-- Fuzzes the readers of job files:
--
--   build/release/dockrun spec/fuzz/run.lua [--seconds N] [--seed S] [--cases N] [--reader hcl|json|lua]
--
-- Each case has its own seed, from S on. If one fails, its files are in build/fuzz, and the command that repeats it is
-- printed; build/fuzz/current has the command of the current case, in case dockrun crashes.
local check = require "spec.fuzz.check"
local uv = require "luv"

local parser = require "argparse"("spec/fuzz/run.lua", "Fuzzes the readers of job files.")
parser:option("--seconds", "How long it runs."):convert(tonumber):default "60"
parser:option("--seed", "The first case's seed."):convert(math.tointeger):default "1"
parser:option("--cases", "How many cases it runs at most."):convert(math.tointeger)
parser:option("--reader", "One reader alone."):choices(check.readers)
local options = parser:parse(arg)

local DIR = "build/fuzz"

local function write(name, text)
  local file <close> = assert(io.open(("%s/%s"):format(DIR, name), "w"))
  assert(file:write(text))
end

local function command(seed)
  local reader = options.reader and " --reader " .. options.reader or ""
  return ("build/release/dockrun spec/fuzz/run.lua --cases 1 --seed %d%s"):format(seed, reader)
end

uv.fs_mkdir("build", 493)
uv.fs_mkdir(DIR, 493)
local current <close> = assert(io.open(DIR .. "/current", "w"))

local start = uv.hrtime()
local function elapsed() return (uv.hrtime() - start) / 1e9 end

local seed, failures, told = options.seed, 0, 0
while elapsed() < options.seconds and (not options.cases or seed < options.seed + options.cases) and failures < 10 do
  current:seek "set"
  current:write(command(seed), "\n")
  current:flush()
  local failure = check.case(seed, options.reader)
  if failure then
    failures = failures + 1
    for format, text in pairs(failure.texts or { [failure.format] = failure.text }) do write(("%d.%s"):format(seed, format), text) end
    print(("seed %d: %s\n  saved: %s/%d.%s\n  again: %s"):format(seed, failure.message, DIR, seed, failure.format, command(seed)))
  end
  seed = seed + 1
  if elapsed() - told >= 10 then
    told = elapsed()
    print(("%4.0f s: %d cases, %d failed"):format(told, seed - options.seed, failures))
  end
end
print(("%d cases in %.0f s from seed %d, %d failed"):format(seed - options.seed, elapsed(), options.seed, failures))
os.exit(failures == 0 and 0 or 1)
