-- Every option of a task that is sent to the engine, with its effect there: the cases of container_config_spec.lua.
--
-- Options that go together share a container: `in_` names it. `inspect` holds what the inspected container must have
-- (Engine API, ContainerInspect), by dotted path; `sh` a command for a shell in the container and the line, or a Lua
-- pattern of it, that it must print; `check(container, created, started)` whatever else, with the `created`
-- event and what the hook `started` was given.
local fingerprint = require "dockrun.driver.fingerprint"
local limits = require "dockrun.driver.limits"

local function has(list, value)
  for _, one in ipairs(list or {}) do
    if one == value then return true end
  end
  return false
end

-- A mount of the container, by its target.
local function mount(container, target)
  for _, one in ipairs(container.Mounts) do
    if one.Destination == target then return one end
  end
  error("nothing is mounted at " .. target, 0)
end

local M = {}

--- What a container's `config` has besides its cases. @NAME is a name that no other copy of the specs uses, @IPV4 and
--- @IPV6 are free addresses of the network of that name, @HOSTNAME is this host's name. The one called `made` is looked at before
--- it starts, as not every machine can start it.
M.containers = {
  plain = { image = "busybox:1", command = "sleep", args = { "600" } },
  network = { image = "busybox:1", command = "sleep", args = { "600" } },
  host = { image = "busybox:1", command = "sleep", args = { "600" } },
  image = { image = "@NAME:1" },
  made = { image = "busybox:1", command = "sleep", args = { "600" } },
}

---@class ConfigCase
---@field in_ string
---@field config? table     of the task, as well as
---@field resources? table
---@field task? table       whatever else it says
---@field inspect? table<string, any>
---@field sh? { [1]: string, [2]: string }
---@field check? fun(container: table, created: Event, started: table)

---@type ConfigCase[]
M.cases = {
  -- the image
  { in_ = "image", config = { image = "@NAME:1" }, inspect = { ["Config.Image"] = "@NAME:1" } },
  { in_ = "image", config = { entrypoint = { "/bin/sh", "-c" } }, inspect = { ["Config.Entrypoint"] = { "/bin/sh", "-c" } },
    sh = { "tr '\\0' ' ' </proc/1/cmdline", "sleep 600 ?" } },
  { in_ = "image", config = { command = "exec sleep 600", args = {} }, inspect = { ["Config.Cmd"] = { "exec sleep 600" } } },
  { in_ = "image", config = { healthchecks = { disable = true } }, inspect = { ["Config.Healthcheck.Test"] = { "NONE" } } },
  { in_ = "image", config = { load = "/alloc/data/image.tar" }, inspect = { ["Config.Labels.loaded"] = "yes" } },

  -- what runs
  { in_ = "plain", config = { work_dir = "/tmp" }, inspect = { ["Config.WorkingDir"] = "/tmp" }, sh = { "readlink /proc/1/cwd", "/tmp" } },
  { in_ = "plain", config = { init = true }, inspect = { ["HostConfig.Init"] = true },
    sh = { "readlink /proc/1/exe", "/sbin/docker%-init" } },
  { in_ = "plain", config = { interactive = true }, inspect = { ["Config.OpenStdin"] = true } },
  { in_ = "plain", config = { tty = true }, inspect = { ["Config.Tty"] = true }, sh = { "readlink /proc/1/fd/1", "/dev/pts/0" } },
  { in_ = "plain", config = { labels = { team = "x", number = 7 } },
    inspect = { ["Config.Labels.team"] = "x", ["Config.Labels.number"] = "7" } },
  { in_ = "plain", config = { logging = { type = "json-file", config = { ["max-size"] = "1m" } } },
    inspect = { ["HostConfig.LogConfig"] = { Type = "json-file", Config = { ["max-size"] = "1m" } } } },
  { in_ = "host", config = {},
    inspect = { ["HostConfig.LogConfig"] = { Type = "json-file", Config = { ["max-size"] = "2m", ["max-file"] = "2" } } } },

  { in_ = "network", task = { user = "nobody" }, inspect = { ["Config.User"] = "nobody" }, sh = { "id -un", "nobody" } },
  { in_ = "network", task = { kill_signal = "SIGINT" }, inspect = { ["Config.StopSignal"] = "SIGINT" } },
  { in_ = "network", task = { kill_timeout = "1500ms" }, inspect = { ["Config.StopTimeout"] = 2 } },
  { in_ = "network", task = { env = { LEVEL = "info", COUNT = 7, WHERE = "${NOMAD_TASK_NAME}" } },
    sh = { "echo $LEVEL $COUNT $WHERE", "info 7 network" } },

  -- network
  { in_ = "network", config = { network_mode = "@NAME" }, inspect = { ["HostConfig.NetworkMode"] = "@NAME" } },
  { in_ = "network", config = { network_aliases = { "web", "web-1" } },
    check = function(container)
      local _, network = next(container.NetworkSettings.Networks)
      assert(has(network.Aliases, "web") and has(network.Aliases, "web-1"), "the aliases are missing")
    end,
    sh = { "nslookup web 2>/dev/null | grep -c @IPV4", "1" } },
  { in_ = "network", config = { ipv4_address = "@IPV4" },
    sh = { "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'", "inet @IPV4" } },
  { in_ = "network", config = { ipv6_address = "@IPV6", advertise_ipv6_address = true },
    sh = { "ip -6 addr show eth0 | grep -o '@IPV6'", "@IPV6" },
    check = function(container, _, started)
      local _, network = next(container.NetworkSettings.Networks)
      assert(started.address == network.GlobalIPv6Address, started.address)
    end },
  { in_ = "plain", config = { mac_address = "02:68:b3:29:da:98" }, sh = { "cat /sys/class/net/eth0/address", "02:68:b3:29:da:98" } },
  { in_ = "plain", config = { hostname = "web.example.org" }, inspect = { ["Config.Hostname"] = "web.example.org" },
    sh = { "hostname", "web.example.org" } },
  { in_ = "plain", config = { extra_hosts = { "db.internal:192.0.2.7" } },
    inspect = { ["HostConfig.ExtraHosts"] = { "db.internal:192.0.2.7" } },
    sh = { "grep db.internal /etc/hosts", "192.0.2.7%s+db.internal" } },
  { in_ = "plain", config = { dns_servers = { "192.0.2.53" }, dns_search_domains = { "example.org" }, dns_options = { "ndots:3" } },
    inspect = { ["HostConfig.Dns"] = { "192.0.2.53" }, ["HostConfig.DnsSearch"] = { "example.org" },
      ["HostConfig.DnsOptions"] = { "ndots:3" } },
    sh = { "tr '\\n' ' ' </etc/resolv.conf", ".*nameserver 192.0.2.53.*" } },
  { in_ = "plain", config = { ports = { "http" }, port_map = { http = 8080 } },
    check = function(container)
      for _, protocol in ipairs { "tcp", "udp" } do
        local bound = container.HostConfig.PortBindings["8080/" .. protocol]
        assert(tonumber(bound[1].HostPort) >= 20000, "8080 is not published")
      end
    end },

  -- storage
  { in_ = "plain", config = { volumes = { "local/data:/data:ro", "../alloc/data:/shared" } },
    check = function(container)
      assert(mount(container, "/data").Source:find "/plain/local/data$" and not mount(container, "/data").RW)
      assert(mount(container, "/shared").Source:find "/alloc/data$" and mount(container, "/shared").RW)
    end,
    sh = { "touch /shared/x && ls /alloc/data/x && touch /data/x 2>/dev/null || echo refused", "/alloc/data/x\nrefused" } },
  { in_ = "host", config = { volume_driver = "local", volumes = { "@NAME:/named" } }, inspect = { ["HostConfig.VolumeDriver"] = "local" },
    check = function(container) assert(mount(container, "/named").Type == "volume") end },
  { in_ = "plain", config = { mount = {
    { type = "tmpfs", target = "/scratch", tmpfs_options = { size = 65536, mode = "0750" } },
    { type = "bind", target = "/mine", source = "local", readonly = true, bind_options = { propagation = "private" } },
    { type = "volume", target = "/kept", volume_options = { no_copy = true, labels = { a = "b" },
      driver_config = { name = "local", options = { type = "tmpfs", device = "tmpfs" } } } },
  } },
    check = function(container)
      local tmpfs, mine = mount(container, "/scratch"), mount(container, "/mine")
      assert(tmpfs.Type == "tmpfs" and tmpfs.RW)
      assert(mine.Type == "bind" and not mine.RW and mine.Propagation == "private" and mine.Source:find "/plain/local$")
      assert(mount(container, "/kept").Type == "volume" and mount(container, "/kept").Driver == "local")
      for _, one in ipairs(container.HostConfig.Mounts) do
        if one.Target == "/kept" then
          assert(one.VolumeOptions.NoCopy and one.VolumeOptions.Labels.a == "b")
          assert(one.VolumeOptions.DriverConfig.Options.type == "tmpfs")
        end
      end
    end,
    sh = { "stat -c %a /scratch; df -k /scratch | awk 'END { print $2 }'; grep -c ' /kept tmpfs' /proc/mounts", "750\n64\n1" } },
  { in_ = "plain", config = { devices = { { host_path = "/dev/null", container_path = "/dev/nothing", cgroup_permissions = "rw" } } },
    inspect = { ["HostConfig.Devices"] = { { PathOnHost = "/dev/null", PathInContainer = "/dev/nothing", CgroupPermissions = "rw" } } },
    sh = { "stat -c %F /dev/nothing", "character special file" } },
  { in_ = "plain", config = { readonly_rootfs = true }, inspect = { ["HostConfig.ReadonlyRootfs"] = true },
    sh = { "touch /x 2>/dev/null || echo refused", "refused" } },
  { in_ = "plain", config = { shm_size = 1048576 }, inspect = { ["HostConfig.ShmSize"] = 1048576 },
    sh = { "df -k /dev/shm | awk 'END { print $2 }'", "1024" } },

  -- what it may do
  { in_ = "made", config = { privileged = true }, inspect = { ["HostConfig.Privileged"] = true } },
  { in_ = "plain", config = { cap_add = { "net_admin", "CAP_SYS_TIME" }, cap_drop = { "mknod" } },
    inspect = { ["HostConfig.CapAdd"] = { "NET_ADMIN", "SYS_TIME" }, ["HostConfig.CapDrop"] = { "MKNOD" } },
    -- bits 12 and 25 are there, bit 27 is not: linux/capability.h
    sh = { "grep CapBnd /proc/self/status", "CapBnd:\t00000000a20435fb" } },
  { in_ = "plain", config = { security_opt = { "no-new-privileges" } }, inspect = { ["HostConfig.SecurityOpt"] = { "no-new-privileges" } },
    sh = { "grep NoNewPrivs /proc/1/status", "NoNewPrivs:\t1" } },
  { in_ = "plain", config = { group_add = { "4242" } }, inspect = { ["HostConfig.GroupAdd"] = { "4242" } },
    sh = { "id -G | tr ' ' '\\n' | grep -c 4242", "1" } },
  { in_ = "plain", config = { runtime = "runc" }, inspect = { ["HostConfig.Runtime"] = "runc" } },
  { in_ = "plain", config = { cgroupns = "private" }, inspect = { ["HostConfig.CgroupnsMode"] = "private" },
    sh = { "grep memory /proc/1/cgroup", "%d+:memory:/" } },
  { in_ = "host", config = { ipc_mode = "host", pid_mode = "host", uts_mode = "host", userns_mode = "host" },
    inspect = { ["HostConfig.IpcMode"] = "host", ["HostConfig.PidMode"] = "host", ["HostConfig.UTSMode"] = "host",
      ["HostConfig.UsernsMode"] = "host" },
    sh = { "hostname", "@HOSTNAME" } },

  -- how much it may use
  { in_ = "host", resources = { cpu = 500, memory = 32 },
    inspect = { ["HostConfig.CpuShares"] = 500, ["HostConfig.Memory"] = 32 << 20, ["HostConfig.MemorySwap"] = 32 << 20 },
    sh = { "cd /sys/fs/cgroup/memory && cat memory.limit_in_bytes ../cpu/cpu.shares", "33554432\n500" } },
  { in_ = "plain", config = { cpu_hard_limit = true, cpu_cfs_period = 50000 }, inspect = { ["HostConfig.CpuPeriod"] = 50000 },
    check = function(container)
      local mhz, cores = fingerprint.compute()
      local quota = limits.quota_from_mhz(500, { mhz = mhz, cores = cores }, 50000)
      assert(math.abs(container.HostConfig.CpuQuota - quota) <= quota / 4, "the clock may vary, but not so much")
    end,
    sh = { "cat /sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000" } },
  { in_ = "plain", config = { cpuset_cpus = "0" }, inspect = { ["HostConfig.CpusetCpus"] = "0" },
    sh = { "grep Cpus_allowed_list /proc/1/status", "Cpus_allowed_list:\t0" } },
  { in_ = "plain", config = { memory_hard_limit = 64 },
    inspect = { ["HostConfig.Memory"] = 64 << 20, ["HostConfig.MemorySwap"] = 64 << 20, ["HostConfig.MemoryReservation"] = 32 << 20 },
    sh = { "cd /sys/fs/cgroup/memory && cat memory.limit_in_bytes memory.soft_limit_in_bytes", "67108864\n33554432" } },
  { in_ = "plain", config = { oom_score_adj = 123 }, inspect = { ["HostConfig.OomScoreAdj"] = 123 },
    sh = { "cat /proc/1/oom_score_adj", "123" } },
  { in_ = "plain", config = { pids_limit = 99 }, inspect = { ["HostConfig.PidsLimit"] = 99 },
    sh = { "cat /sys/fs/cgroup/pids/pids.max", "99" } },
  { in_ = "plain", config = {}, resources = { io = { weight = 300, device = { ["@DISK"] = {
    read_bps = 1048576, write_bps = 2097152, read_iops = 100, write_iops = 200,
  } } } },
    inspect = {
      ["HostConfig.BlkioDeviceReadBps"] = { { Path = "@DISK", Rate = 1048576 } },
      ["HostConfig.BlkioDeviceWriteBps"] = { { Path = "@DISK", Rate = 2097152 } },
      ["HostConfig.BlkioDeviceReadIOps"] = { { Path = "@DISK", Rate = 100 } },
      ["HostConfig.BlkioDeviceWriteIOps"] = { { Path = "@DISK", Rate = 200 } },
    },
    -- Not every kernel has a scheduler that knows of weights; what the engine leaves out is told.
    check = function(container, created)
      assert(container.HostConfig.BlkioWeight == 300 or created.message:find "[Ww]eight discarded", created.message)
    end,
    sh = { "cd /sys/fs/cgroup/blkio && cut -d' ' -f2 blkio.throttle.*_device | tr '\\n' ' '", "1048576 100 2097152 200 " } },
  { in_ = "plain", config = { sysctl = { ["net.core.somaxconn"] = 4321 } },
    inspect = { ["HostConfig.Sysctls"] = { ["net.core.somaxconn"] = "4321" } },
    sh = { "cat /proc/sys/net/core/somaxconn", "4321" } },
  -- Not the soft limit of open files: runc, written in Go, now and then leaves it at the hard one
  -- (https://github.com/opencontainers/runc/issues/4195).
  { in_ = "plain", config = { ulimit = { nofile = "2048:4096", cpu = "1000:2000", core = 0 } },
    inspect = { ["HostConfig.Ulimits"] = {
      { Name = "core", Soft = 0, Hard = 0 }, { Name = "cpu", Soft = 1000, Hard = 2000 }, { Name = "nofile", Soft = 2048, Hard = 4096 },
    } },
    sh = { "ulimit -Hn; ulimit -St; ulimit -Ht; ulimit -c", "4096\n1000\n2000\n0" } },
}

--- Options that not every engine has: `said` is in its refusal.
---@type { config: string, paths: string[], inspect: table<string, any>, said: string }[]
M.maybe = {
  { config = "storage_opt = { size = '1G' }", paths = { "config.storage_opt" }, inspect = { ["HostConfig.StorageOpt.size"] = "1G" },
    said = "storage" },
}

local IMAGE, CREDENTIALS, LIFE = "spec/driver/image_spec.lua", "spec/driver/credentials_spec.lua", "spec/task/lifecycle_spec.lua"
local PORTS = "spec/driver/forms_spec.lua"

--- Options that no container shows: which spec shows that they do what they say, by its file and its title.
---@type table<string, { [1]: string, [2]: string }>
M.elsewhere = {
  ["config.image_pull_timeout"] = { IMAGE, "is waited for as long as image_pull_timeout says, by each task for itself" },
  ["config.force_pull"] = { IMAGE, "is pulled anew with force_pull, and only then" },
  ["config.container_exists_attempts"] = { IMAGE, "that comes back is removed container_exists_attempts times" },
  ["config.auth.username"] = { CREDENTIALS, "are used by the pull, and are in no event and on no container" },
  ["config.auth.password"] = { CREDENTIALS, "are used by the pull, and are in no event and on no container" },
  ["config.auth.email"] = { CREDENTIALS, "in the task's auth first" },
  ["config.auth.server_address"] = { CREDENTIALS, "in the task's auth first" },
  ["config.auth_soft_fail"] = { CREDENTIALS, "that cannot be had do not stop a task with auth_soft_fail from trying" },
  ["shutdown_delay"] = { LIFE, "waits out its shutdown_delay, gets its kill_signal, and SIGKILL after kill_timeout" },
  ["resources.network.dynamic_ports"] = { PORTS, "are published by tcp and udp, each as its form says" },
  ["resources.network.reserved_ports"] = { PORTS, "are published by tcp and udp, each as its form says" },
  ["resources.network.port.label"] = { PORTS, "are published by tcp and udp, each as its form says" },
  ["resources.network.port.static"] = { PORTS, "are published by tcp and udp, each as its form says" },
  ["resources.network.port.to"] = { PORTS, "are published by tcp and udp, each as its form says" },
}

--- Options that do nothing by themselves.
---@type table<string, string>
M.silent = {
  ["resources.network.mbits"] = "kept for the record: the engine has no limit of bandwidth",
}

return M
