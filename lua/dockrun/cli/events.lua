local arguments = require "dockrun.arguments"
local dockrun = require "dockrun"
local output = require "dockrun.output"
local standard = require "dockrun.core.standard"
local store = require "dockrun.store"

local colors = { error = "31", warn = "33", info = "36", debug = "90" }

local function show(args, event)
  if args.json then
    event.id = nil
    output.json(event)
  else
    local level = output.levels[event.event] or "info"
    output.result(("%s  %s"):format(event.time:sub(1, 23) .. "Z", output.paint(output.event(event), colors[level])))
  end
  standard.wait(1)
end

return {
  summary = "Print the events of tasks.",
  define = function(command)
    command:argument("job", "Only those of this job."):args "?"
    command:flag("-f --follow", "Continue with new events.")
    command:option("--tail", "Only the last N events."):argname "N":convert(arguments.integer("--tail", 0))
  end,
  run = function(args)
    standard.end_with_reader "at once"
    local state <close>, err = store.open(dockrun.options.state_dir, { readonly = not args.follow })
    if not state then
      if err.kind == "missing" then return 0 end
      return nil, err
    end
    local events
    events, err = state:events { job = args.job, limit = args.tail }
    if not events then return nil, err end
    local last = 0
    for _, event in ipairs(events) do
      last = event.id
      show(args, event)
    end
    if args.follow then
      for event in state:follow(last, { job = args.job }) do show(args, event) end
    end
    return 0
  end,
}
