local claim = require "dockrun.claim"
local dockrun = require "dockrun"
local events = require "dockrun.events"
local inventory = require "dockrun.driver.inventory"
local output = require "dockrun.cli.output"
local removal = require "dockrun.driver.removal"

return {
  summary = "Stop a job and clean up after it.",
  define = function(command)
    command:argument("job", "The job's name.")
    command:flag("--purge", "Remove its containers even where docker.cleanup.container is false.")
  end,
  run = function(args)
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    local asked = claim.ask_to_stop(dockrun.options.state_dir, engine:endpoint(), args.job, "dockrun stop")
    local records
    records, err = inventory.list(engine, args.job)
    if not records then return nil, err end
    if asked and #records == 0 then return 0 end
    if #records == 0 then return nil, dockrun.error("failed", ("no job '%s' on this engine"):format(args.job)) end
    local emitter = events.new()
    emitter:listen(args.json and output.json or function(event)
      output.say("info", ("%s.%s.%s: %s"):format(event.job, event.group, event.task, event.event))
    end)
    local stops, failure = {}, nil
    local keep = not (args.purge or dockrun.options["docker.cleanup.container"])
    for i, record in ipairs(records) do
      stops[i] = function()
        local ok, why = removal.stop(engine, emitter, record, { keep = keep })
        failure = failure or not ok and why or nil
      end
    end
    dockrun.all(stops)
    for _, why in ipairs(removal.directories(records)) do output.say("warn", tostring(why)) end
    removal.images(engine, emitter, records, dockrun.options)
    if failure then return nil, failure end
    return 0
  end,
}
