--- What the options of a task's `config` mean together, and with its resources.


local M = {}

local rules = {}

-- What the engine's own networks cannot do.
local own_networks = { default = true, bridge = true, host = true, none = true }

function rules.network(config, _, complain)
  if not own_networks[config.network_mode] then return end
  for _, key in ipairs { "ipv4_address", "ipv6_address", "network_aliases" } do
    if config[key] then
      complain(config, key, ("needs a network of your own, and network_mode is '%s'"):format(config.network_mode))
    end
  end
end

local options_of = { bind = "bind_options", tmpfs = "tmpfs_options", volume = "volume_options" }

function rules.mounts(config, _, complain)
  for _, mount in ipairs(config.mount or {}) do
    local kind = mount.type
    if kind == "bind" and not mount.source then complain(mount, "source", "is required: the path on the host") end
    if kind == "tmpfs" and mount.source then complain(mount, "source", "means nothing to a tmpfs mount") end
    for other, key in pairs(options_of) do
      if mount[key] and options_of[kind] and other ~= kind then complain(mount, key, ("means nothing to a %s mount"):format(kind)) end
    end
  end
end

function rules.volume_driver(config, _, complain)
  if config.volume_driver and not config.volumes then complain(config, "volume_driver", "means nothing without volumes") end
end

function rules.memory(config, resources, complain)
  local hard, memory = config.memory_hard_limit, resources.memory
  if hard and hard > 0 and memory and hard < memory then
    complain(config, "memory_hard_limit", ("must not be below resources.memory, which is %d"):format(memory))
  end
end

local in_order = { "network", "mounts", "volume_driver", "memory" }

--- Checks a task, once each of its keys has been read.
---@param reading Reading
---@param task table
function M.task(reading, task)
  local function complain(block, key, message) reading.problems:add(("%s.%s"):format(reading.paths[block], key), message) end
  for _, name in ipairs(in_order) do
    rules[name](task.config or {}, task.resources or {}, complain)
  end
end

return M
