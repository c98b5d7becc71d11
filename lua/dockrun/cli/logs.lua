local containers = require "dockrun.cli.containers"
local dockrun = require "dockrun"
local duration = require "dockrun.job.duration"
local loglines = require "dockrun.cli.loglines"
local output = require "dockrun.cli.output"
local standard = require "dockrun.core.standard"
local timestamp = require "dockrun.timestamp"

-- A moment as the engine takes it, in seconds since 1970: "10m" is ten minutes ago.
local function moment(text)
  if text:find "^%d+%.?%d*$" then return text end
  local at = timestamp.seconds(text)
  if at then return at .. (text:match "%.%d+" or "") end
  local ago = duration.parse(text)
  if ago then return tostring(os.time() - math.ceil(ago)) end
  return nil, "--since takes a duration (10m), a timestamp (2006-01-02T15:04:05Z) or a Unix time, not '" .. text .. "'"
end

local function lines(text)
  if text == "all" or text:find "^%d+$" then return text end
  return nil, "--tail takes a number of lines or 'all', not '" .. text .. "'"
end

local LONGEST = 1024 * 1024  -- bytes; a longer line is several in JSON

-- Shows whole lines as JSON. Returns what takes pieces, and what shows the line that has no end.
local function json_lines(record)
  local open = {}
  local function finish(stream)
    local line = open[stream]
    open[stream] = nil
    output.json {
      time = line.time, job = record.job, group = record.group, task = record.task, alloc = record.alloc,
      stream = stream, line = table.concat(line):gsub("\n$", ""),
    }
    return standard.wait(1) ~= nil
  end
  return function(bytes, stream, time)
    local line = open[stream] or { time = time, size = 0 }
    open[stream] = line
    line[#line + 1], line.size = bytes, line.size + #bytes
    if bytes:sub(-1) == "\n" or line.size > LONGEST then return finish(stream) end
  end, function()
    for stream in pairs(open) do finish(stream) end
  end
end

-- Shows lines as they are, or without control sequences.
local function text_lines(record, prefix, plain)
  return function(bytes, stream)
    local fd = stream == "stderr" and 2 or 1
    return output.pour(fd, output.lines(fd, record, prefix, plain and output.plain(bytes) or bytes)) ~= nil
  end, function() end
end

return {
  summary = "Print what a job's tasks wrote.",
  define = function(command)
    command:argument("target", "JOB or JOB/TASK.")
    command:flag("-f --follow", "Go on as more is written.")
    command:flag("--plain", "Leave out control sequences.")
    command:option("--tail", "Only the last N lines."):argname "N":convert(lines)
    command:option("--since", "Only what is newer: 10m, a timestamp, or a Unix time."):argname "T":convert(moment)
  end,
  run = function(args)
    local job, task = args.target:match "^([^/]+)/(.+)$"
    job = job or args.target
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    local records
    records, err = containers(engine, job, task)
    if not records then return nil, err end
    if #records == 0 then return nil, dockrun.error("failed", ("nothing runs as '%s' on this engine"):format(args.target)) end
    standard.end_with_reader "at once"
    local failure
    local follow = {}
    for i, record in ipairs(records) do
      local prefix = #records > 1 and ("%s[%d] | "):format(record.task, record.index) or ""
      follow[i] = function()
        local show, finish
        if args.json then show, finish = json_lines(record) else show, finish = text_lines(record, prefix, args.plain) end
        local ok, why = loglines.each(engine, record.container_id, {
          follow = args.follow, tail = args.tail, since = args.since, tty = record.tty,
        }, show, function(text) output.say("warn", ("%s.%s.%s: %s"):format(record.job, record.group, record.task, text)) end)
        finish()
        if not ok then failure = why end
      end
    end
    dockrun.all(follow)
    if failure then return nil, failure end
    return 0
  end,
}
