-- An operator's hooks: `dockrun run --hooks scripts/example/hooks.lua JOB`. Read each and replace it.
local hooks = {}

-- Labels each container with its owner, and limits it to 32 processes.
function hooks.prestart(task, container)
  container.Labels.owner = task.meta.owner or "nobody"
  container.HostConfig.PidsLimit = 32
end

-- Refuses an image without a fixed tag: it may change from one start to the next.
function hooks.pull(_, pull)
  if pull.image:match ":latest$" or not pull.image:match "[:@][^/]+$" then
    return false, "name a tag or a digest, not " .. pull.image
  end
end

return hooks
