local dockrun = require "dockrun"
local duration = require "dockrun.job.duration"
local inventory = require "dockrun.driver.inventory"
local loglines = require "dockrun.cli.loglines"
local output = require "dockrun.cli.output"

-- "10m" is ten minutes ago; a number or a timestamp is left to the engine.
local function since_of(text)
  if not text then return nil end
  local seconds = not tonumber(text) and duration.parse(text)
  return seconds and tostring(os.time() - math.ceil(seconds)) or text
end

return {
  summary = "Print what a job's tasks wrote.",
  define = function(command)
    command:argument("target", "JOB or JOB/TASK.")
    command:flag("-f --follow", "Go on as more is written.")
    command:option("--tail", "Only the last N lines."):argname "N"
    command:option("--since", "Only what is newer: 10m, or a Unix time."):argname "T"
  end,
  run = function(args)
    local job, task = args.target:match "^([^/]+)/(.+)$"
    job = job or args.target
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    local records
    records, err = inventory.list(engine, job, task)
    if not records then return nil, err end
    if #records == 0 then return nil, dockrun.error("failed", ("nothing runs as '%s' on this engine"):format(args.target)) end
    local failure
    local follow = {}
    for i, record in ipairs(records) do
      local prefix = #records > 1 and ("%s[%d] | "):format(record.task, record.index) or ""
      local function show(text, stream)
        if args.json then
          local time, line = text:match "^(%S+) (.*)$"
          output.json {
            time = time, job = record.job, group = record.group, task = record.task, alloc = record.alloc,
            stream = stream, line = line,
          }
        else
          local file = stream == "stderr" and io.stderr or io.stdout
          file:write(prefix, text, "\n")
          file:flush()
        end
      end
      follow[i] = function()
        local ok, why = loglines.each(engine, record.container_id, {
          follow = args.follow, tail = args.tail, since = since_of(args.since), tty = record.tty, timestamps = args.json,
        }, show)
        if not ok then failure = why end
      end
    end
    dockrun.all(follow)
    if failure then return nil, failure end
    return 0
  end,
}
