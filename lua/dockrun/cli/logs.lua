local dockrun = require "dockrun"
local duration = require "dockrun.job.duration"
local logs = require "dockrun.driver.logs"
local output = require "dockrun.output"
local standard = require "dockrun.core.standard"
local target = require "dockrun.agent.target"
local time = require "dockrun.util.time"

-- Converts a moment to seconds since 1970, as the engine takes it: "10m" is ten minutes ago.
local function moment(text)
  if text:find "^%d+%.?%d*$" then return text end
  local at = time.seconds(text)
  if at then return at .. (text:match "%.%d+" or "") end
  local ago = duration.parse(text)
  if ago then return tostring(os.time() - math.ceil(ago)) end
  return nil, "--since: expected a duration (10m), a timestamp (2006-01-02T15:04:05Z) or a Unix time, got '" .. text .. "'"
end

local function lines(text)
  if text == "all" or text:find "^%d+$" then return text end
  return nil, "--tail: expected a number of lines or 'all', got '" .. text .. "'"
end

local LONGEST = 1024 * 1024  -- bytes; JSON shows a longer line as several

-- Shows whole lines as JSON. Returns a function that takes pieces, and one that shows an unfinished line at the end.
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
  return function(bytes, stream, stamp)
    local line = open[stream] or { time = stamp, size = 0 }
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
  summary = "Print the output of a job's tasks.",
  define = function(command)
    command:argument("target", "JOB or JOB/TASK.")
    command:flag("-f --follow", "Continue with new output.")
    command:flag("--plain", "Leave control sequences out.")
    command:option("--tail", "Only the last N lines."):argname "N":convert(lines)
    command:option("--since", "Only newer output: 10m, a timestamp, or a Unix time."):argname "T":convert(moment)
  end,
  run = function(args)
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    local records
    records, err = target.find(engine, dockrun.options, args.target)
    if not records then return nil, err end
    standard.end_with_reader "at once"
    local failure
    local follow = {}
    for i, record in ipairs(records) do
      local prefix = #records > 1 and ("%s[%d] | "):format(record.task, record.index) or ""
      follow[i] = function()
        local show, finish
        if args.json then show, finish = json_lines(record) else show, finish = text_lines(record, prefix, args.plain) end
        local ok, why = logs.each(engine, record.container_id, {
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
