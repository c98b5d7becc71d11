local adopt = require "dockrun.agent.adopt"
local agents = require "dockrun.agent"
local dockrun = require "dockrun"
local lock = require "dockrun.agent.lock"
local output = require "dockrun.output"

local function describe(one, record)
  return {
    job = one.job, group = record.group, index = record.index, task = record.task, alloc = record.alloc,
    container_id = record.container_id, state = record.state, reason = one.refused,
  }
end

-- A row for each container: those that can be adopted, and those that cannot.
local function rows_of(list)
  local rows, refused = dockrun.json.array {}, dockrun.json.array {}
  for _, one in ipairs(list) do
    for _, record in ipairs(one.observations) do
      local to = one.refused and refused or rows
      to[#to + 1] = describe(one, record)
    end
  end
  return rows, refused
end

local function show(rows, verb)
  for _, row in ipairs(rows) do
    output.result(("%s %s-%s as %s.%s[%d].%s (%s)%s"):format(verb, row.task, row.alloc, row.job, row.group, row.index, row.task,
      row.state, row.reason and ": " .. row.reason or ""))
  end
end

-- Whether the user agrees; nil, err without a terminal to ask on.
local function confirmed(args, count)
  if args.yes then return true end
  if not (output.is_terminal(0) and output.is_terminal(2)) then
    return nil, dockrun.error("usage",
      "adopt asks before it takes a container over, which needs a terminal; add --yes, or --dry-run to only show them")
  end
  io.stderr:write(("Adopt %s? [y/N] "):format(count == 1 and "this container" or ("these %d containers"):format(count)))
  io.stderr:flush()
  return (io.read() or ""):lower():find "^y" ~= nil
end

-- Takes over those allocations of a job that were shown to the user. The lock comes first, so they are read again.
local function take_job(agent, job, shown, done)
  local held <close>, err = lock.hold(agent, job, function() end)
  if not held then return err end
  local list
  list, err = adopt.find(agent, job)
  if not list then return err end
  for _, one in ipairs(list) do
    if shown[one.observations[1].alloc] and not one.refused then
      local ok, why = adopt.take(agent, one)
      if ok then done[#done + 1] = one else err = err or why end
    end
  end
  return err
end

local function take(agent, list)
  local jobs, shown, done, failure = {}, {}, {}, nil
  for _, one in ipairs(list) do
    if not one.refused then
      if jobs[#jobs] ~= one.job then jobs[#jobs + 1] = one.job end
      shown[one.observations[1].alloc] = true
    end
  end
  for _, job in ipairs(jobs) do failure = take_job(agent, job, shown, done) or failure end
  return done, failure
end

return {
  summary = "Take over containers that the state does not know.",
  define = function(command)
    command:argument("job", "Only those of this job."):args "?"
    command:flag("--dry-run", "Only show what would be taken over.")
    command:flag("-y --yes", "Do not ask.")
  end,
  run = function(args)
    local agent, err = agents.new(dockrun.options)
    if not agent then return nil, err end
    local list
    list, err = adopt.find(agent, args.job)
    if not list then return nil, err end
    local rows, refused = rows_of(list)
    if not args.json then
      show(rows, args.yes and "adopting" or "would adopt")
      show(refused, "cannot adopt")
      if #rows == 0 then output.say("info", "no container to adopt") end
    end
    local sure, failure = true, nil
    if #rows > 0 and not args.dry_run then
      sure, err = confirmed(args, #rows)
      if sure == nil then return nil, err end
      if sure then
        list, failure = take(agent, list)
        rows = rows_of(list)
      end
    end
    if args.json then
      output.json { adopted = sure and rows or dockrun.json.array {}, refused = refused, dry_run = args.dry_run or false }
    end
    agent:close()
    if failure then return nil, failure end
    if #rows > 0 and sure and not args.dry_run then
      output.say("info", "`dockrun run FILE` or `dockrun agent` now watches what was adopted")
    end
    return sure and 0 or 1
  end,
}
