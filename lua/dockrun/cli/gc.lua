local agents = require "dockrun.agent"
local dockrun = require "dockrun"
local gc = require "dockrun.agent.gc"
local output = require "dockrun.output"

local function describe(one) return { kind = one.kind, name = one.name, reason = one.reason } end

local function show(args, one, verb)
  if not args.json then output.result(("%s %s %s (%s)"):format(verb, one.kind, one.name, one.reason)) end
end

return {
  summary = "Remove what no job owns any longer.",
  define = function(command) command:flag("--dry-run", "Only show what would be removed; with -v, also what is ignored.") end,
  run = function(args)
    local agent, err = agents.new(dockrun.options)
    if not agent then return nil, err end
    local list, ignored = gc.find(agent)
    if not list then return nil, ignored end
    local rows, ok = dockrun.json.array {}, true
    if args.dry_run then
      for i, one in ipairs(list) do
        rows[i] = describe(one)
        show(args, one, "would remove")
      end
      for _, one in ipairs(args.verbose and ignored or {}) do show(args, one, "ignores") end
    else
      ok, err = gc.collect(agent, list, function(one, why)
        local row = describe(one)
        row.error = why and tostring(why)
        rows[#rows + 1] = row
        if why then output.say("error", ("cannot remove %s %s: %s"):format(one.kind, one.name, why)) else show(args, one, "removed") end
      end)
    end
    if args.json then
      output.json { garbage = rows, ignored = args.verbose and dockrun.json.array(ignored) or nil, dry_run = args.dry_run or false }
    end
    agent:close()
    if not ok then return nil, err end
    return 0
  end,
}
