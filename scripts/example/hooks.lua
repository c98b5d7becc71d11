-- An operator's hooks: `dockrun run --hooks scripts/example/hooks.lua JOB`. Each is a decision that can be read and replaced.
local hooks = {}

-- Every container says whose it is, and none may run more than 32 processes.
function hooks.prestart(task, container)
  container.Labels.owner = task.meta.owner or "nobody"
  container.HostConfig.PidsLimit = 32
end

-- An image that names no registry and no fixed tag is a surprise waiting to happen.
function hooks.pull(_, pull)
  if pull.image:match ":latest$" or not pull.image:match "[:@][^/]+$" then
    return false, "name a tag or a digest, not " .. pull.image
  end
end

return hooks
