local schema = require "dockrun.job.schema"

describe("the schema, described for help,", function()
  local by_path = {}
  for _, row in ipairs(schema.describe()) do by_path[row.path] = row end

  for _, case in ipairs {
    { "job.type", type = "string", default = "service", values = { "service", "batch", "system", "sysbatch" } },
    { "job.group.count", type = "integer", default = 1 },
    { "job.group.task.config.image", type = "string", required = true },
    { "job.group.task.config.args", type = "list of string" },
    { "job.group.task.config.network_mode", type = "string", default = "bridge" },
    { "job.group.task.config.privileged", type = "boolean", default = false },
    { "job.group.task.config.mount.volume_options.driver_config.options", type = "map of string" },
    { "job.group.task.resources.io.device.read_bps", type = "integer" },
    { "job.group.task.user", type = "string" },
    { "job.group.task.resources.cpu", type = "integer", default = 100 },
    { "job.group.task.resources.memory", type = "integer", default = 300 },
    { "job.group.task.resources.network.dynamic_ports", type = "list of label" },
    { "job.task.config.image", type = "string", required = true },
    { "job.datacenters", type = "any", unused = true },
  } do
    it("knows " .. case[1], function()
      local row = assert(by_path[case[1]])
      assert.same({ case.type, case.default, case.values, case.required or false, case.unused or false },
        { row.type, row.default, row.values, row.required, row.unused })
      assert.is_true(#row.doc > 0)
    end)
  end

  it("says what an option becomes on the engine, and what limits it", function()
    local row = by_path["job.group.task.config.privileged"]
    assert.same({ "HostConfig.Privileged", { "docker.allow_privileged" } }, { row.engine, row.policy })
  end)

  it("does not show keys that users do not write", function()
    assert.is_nil(by_path["job.warnings"])
    assert.is_nil(by_path["job.group.task.resources.network.ports"])
  end)
end)
