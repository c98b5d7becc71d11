--- Rows of `config` in a task: one per option of the Docker driver, with names, types and defaults as Nomad's
--- (https://developer.hashicorp.com/nomad/docs/job-declare/task-driver/docker).
---
--- A row has, besides the keys that schema/init.lua describes: `engine`, the field of the create body that it becomes (Engine API
--- v1.41, ContainerCreate; left out if dockrun itself acts on it), and `policy`, the agent's options that limit it.

local validators = require "dockrun.job.validators"
local legacy = require "dockrun.job.legacy"
local reference = require "dockrun.job.reference"
local rows_of = require "dockrun.job.schema.rows"
local storage = require "dockrun.job.schema.mounts"
local types = require "dockrun.job.types"

local function image(value)
  if validators.is_open(value) then return nil end
  if validators.not_blank(value) then return validators.not_blank(value) end
  return select(2, reference.parse(value))
end

local function network_mode(value)
  if value:find "^container:" then
    return ("network_mode '%s' is not supported; use default, bridge, host, none or the name of a network"):format(value)
  end
  if not validators.is_open(value) and not value:find "^%w[%w_.-]*$" then
    return ("must be default, bridge, host, none or the name of a network, got %s"):format(types.show(value))
  end
end

-- capabilities(7) of Linux 6; upper or lower case, with or without CAP_.
local capabilities = { ALL = true }
for name in ([[AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH
  FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE
  NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE
  SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG SYSLOG WAKE_ALARM]]):gmatch "%S+" do
  capabilities[name] = true
end

local function capability(value)
  if not validators.is_open(value) and not capabilities[value:upper():gsub("^CAP_", "")] then
    return ("must be a capability such as NET_ADMIN, or all, got %s"):format(types.show(value))
  end
end

-- setrlimit(2), by the names that the engine has for them.
local limits = {}
for name in ([[core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack]]):gmatch "%S+" do
  limits[name] = true
end

local function limit_name(key)
  if not limits[key] then return "is not a limit of setrlimit(2), such as nofile" end
end

local function limit(value)
  if validators.is_open(value) then return nil end
  local soft, hard = value:match "^(%-?%d+):(%-?%d+)$"
  soft, hard = math.tointeger(tonumber(soft or value)), math.tointeger(tonumber(hard or soft or value))
  if not soft or not hard or soft < -1 or hard < -1 then
    return ("must be 'soft:hard', or one number for both, -1 for no limit, got %s"):format(types.show(value))
  end
  if hard ~= -1 and (soft > hard or soft == -1) then
    return ("the soft limit (%d) must not be above the hard one (%d)"):format(soft, hard)
  end
end

local function extra_host(value)
  if validators.is_open(value) then return nil end
  local name, address = value:match "^([^:%s]+):(%S+)$"
  if not name or address ~= "host-gateway" and validators.address()(address) then
    return ("must be 'name:address', got %s"):format(types.show(value))
  end
end

local function own_label(key)
  if key == "" then return "is not a name for a label" end
  if key:find "^dockrun%." then return "begins with 'dockrun.', which is kept for dockrun's own" end
end

local namespace = "host, or container:NAME for that of a container"

local auth = {
  { name = "username", type = "string", doc = "name of the account" },
  { name = "password", type = "string", doc = "password of the account" },
  { name = "email", type = "string", doc = "e-mail address of the account" },
  { name = "server_address", type = "string", doc = "the registry, without a scheme; left out, that of the image" },
}

local rotated = { type = "json-file", config = { ["max-file"] = "2", ["max-size"] = "2m" } }

local healthchecks = {
  { name = "disable", type = "boolean", default = false, engine = "Healthcheck.Test", doc = "do not run the image's HEALTHCHECK" },
}

local logging = {
  { name = "type", was = "driver", type = "string", default = "json-file", check = validators.not_blank,
    engine = "HostConfig.LogConfig.Type", doc = "the engine's log driver" },
  { name = "config", type = "map", of = "string", engine = "HostConfig.LogConfig.Config", doc = "options of the log driver" },
}

---@type SchemaRow[]
return rows_of.join({
  -- the image
  { name = "image", type = "string", required = true, check = image, engine = "Image",
    doc = "image reference; no tag means latest" },
  { name = "image_pull_timeout", type = "duration", check = validators.range(1),
    doc = "time that a pull may take; left out, docker.pull_timeout (5m)" },
  { name = "force_pull", type = "boolean", default = false, doc = "pull, even if the image is on the host" },
  { name = "load", type = "string", older = legacy.only, check = validators.not_blank,
    policy = { "job_files" },
    doc = "archive to load the image from: a path in /local, or one below /local or /alloc" },
  { name = "auth", type = "block", rows = auth, doc = "credentials for the registry" },
  { name = "auth_soft_fail", type = "boolean", default = false, doc = "pull without credentials if getting them fails" },

  -- what runs
  { name = "entrypoint", type = "list", of = "string", engine = "Entrypoint", doc = "replaces the entrypoint of the image" },
  { name = "command", type = "string", check = validators.not_blank, engine = "Cmd",
    doc = "the command; without args it is split at its blanks" },
  { name = "args", type = "list", of = "string", older = legacy.words, engine = "Cmd", doc = "arguments of the command" },
  { name = "work_dir", type = "string", check = validators.absolute_path, engine = "WorkingDir",
    doc = "replaces the working directory of the image" },
  { name = "init", type = "boolean", default = false, engine = "HostConfig.Init", doc = "run an init that reaps zombies as PID 1" },
  { name = "interactive", type = "boolean", default = false, engine = "OpenStdin", doc = "keep stdin open" },
  { name = "tty", type = "boolean", default = false, engine = "Tty", doc = "allocate a terminal" },
  { name = "healthchecks", type = "block", rows = healthchecks, doc = "use of the image's HEALTHCHECK" },
  { name = "labels", type = "map", of = "string", check_key = own_label, engine = "Labels", doc = "labels of the container" },
  { name = "logging", type = "block", rows = logging, default = rotated,
    doc = "log driver; left out, json-file with max-file = 2 and max-size = 2m" },
  { name = "container_exists_attempts", type = "integer", default = 5, check = validators.range(1, 100),
    doc = "attempts to remove a leftover container of the same name" },

  -- network
  { name = "network_mode", type = "string", default = "bridge", check = network_mode, engine = "HostConfig.NetworkMode",
    doc = "default, bridge, host, none or the name of a network" },
  { name = "network_aliases", type = "list", of = "string", check = validators.not_blank,
    engine = "NetworkingConfig.EndpointsConfig.*.Aliases", doc = "further names of the task in a network of your own" },
  { name = "ipv4_address", type = "string", check = validators.address(4),
    engine = "NetworkingConfig.EndpointsConfig.*.IPAMConfig.IPv4Address", doc = "address in a network of your own" },
  { name = "ipv6_address", type = "string", check = validators.address(6),
    engine = "NetworkingConfig.EndpointsConfig.*.IPAMConfig.IPv6Address", doc = "address in a network of your own" },
  { name = "advertise_ipv6_address", type = "boolean", default = false,
    doc = "give `started` hooks the IPv6 address of the container" },
  { name = "mac_address", type = "string", engine = "NetworkingConfig.EndpointsConfig.*.MacAddress",
    check = validators.matches("a MAC address such as 02:68:b3:29:da:98", ("%x%x:"):rep(5) .. "%x%x"),
  doc = "MAC address of its network interface" },
  { name = "hostname", type = "string", engine = "Hostname", doc = "host name; left out, the start of the container's ID",
    check = validators.matches("a host name (letters, digits, '-', '.')", "%w", "%w[%w_.-]*%w") },
  { name = "extra_hosts", type = "list", of = "string", check = extra_host, engine = "HostConfig.ExtraHosts",
    doc = "name:address lines for /etc/hosts" },
  { name = "dns_servers", type = "list", of = "string", check = validators.address(), engine = "HostConfig.Dns",
    doc = "addresses of DNS servers" },
  { name = "dns_search_domains", was = "search_domains", type = "list", of = "string", check = validators.not_blank,
    engine = "HostConfig.DnsSearch", doc = "search domains of DNS" },
  { name = "dns_options", type = "list", of = "string", check = validators.not_blank, engine = "HostConfig.DnsOptions",
    doc = "options of resolv.conf(5)" },
  { name = "ports", type = "list", of = "label", engine = "HostConfig.PortBindings",
    doc = "labels of the group's ports that this task publishes" },
  { name = "port_map", type = "map", of = "port", engine = "HostConfig.PortBindings", doc = "label = port in the container" },

  -- storage
  { name = "volumes", type = "list", of = "string", check = storage.volume, engine = "HostConfig.Binds",
    policy = { "docker.volumes.enabled", "docker.volumes.selinuxlabel" },
    doc = "source:target[:mode]; a relative source is in the task's directory, which holds local/" },
  { name = "volume_driver", type = "string", check = validators.not_blank, engine = "HostConfig.VolumeDriver",
    policy = { "docker.volumes.enabled" }, doc = "volume driver; the sources of volumes are then names" },
  { name = "mount", was = "mounts", type = "blocks", rows = storage.mount, engine = "HostConfig.Mounts",
    policy = { "docker.volumes.enabled" }, doc = "a volume, a directory of the host or memory" },
  { name = "devices", type = "blocks", rows = storage.device, engine = "HostConfig.Devices",
    policy = { "docker.volumes.enabled" }, doc = "devices of the host, in /dev" },
  { name = "readonly_rootfs", type = "boolean", default = false, engine = "HostConfig.ReadonlyRootfs",
    doc = "only volumes are writable" },
  { name = "shm_size", type = "integer", check = validators.range(0), engine = "HostConfig.ShmSize", doc = "size of /dev/shm in bytes" },
  { name = "storage_opt", type = "map", of = "string", engine = "HostConfig.StorageOpt", doc = "options of the engine's storage driver" },

  -- what it may do
  { name = "privileged", type = "boolean", default = false, engine = "HostConfig.Privileged",
    policy = { "docker.allow_privileged" }, doc = "give it all rights of root on the host" },
  { name = "cap_add", type = "list", of = "string", check = capability, engine = "HostConfig.CapAdd",
    policy = { "docker.allow_caps" }, doc = "capabilities to add to the engine's default set, or all" },
  { name = "cap_drop", type = "list", of = "string", check = capability, engine = "HostConfig.CapDrop",
    doc = "capabilities to remove from the engine's default set, or all" },
  { name = "security_opt", type = "list", of = "string", check = validators.not_blank, engine = "HostConfig.SecurityOpt",
    policy = { "job_files" },
    doc = "as in docker run --security-opt; seccomp=FILE takes a path as load does" },
  { name = "group_add", type = "list", of = "string", check = validators.not_blank, engine = "HostConfig.GroupAdd",
    doc = "further groups of the user" },
  { name = "runtime", type = "string", check = validators.not_blank, engine = "HostConfig.Runtime",
    policy = { "docker.allow_runtimes" }, doc = "OCI runtime of the engine" },
  { name = "cgroupns", type = "string", check = validators.one_of("host", "private"), engine = "HostConfig.CgroupnsMode",
    doc = "cgroup namespace: host or private; left out, the engine's default" },
  { name = "ipc_mode", type = "string", engine = "HostConfig.IpcMode", policy = { "docker.allowed_modes.ipc" },
    check = validators.matches("none, private, shareable, " .. namespace, "none", "private", "shareable", "host", "container:%S+"),
    doc = "none, private, shareable, " .. namespace },
  { name = "pid_mode", type = "string", engine = "HostConfig.PidMode", policy = { "docker.allowed_modes.pid" },
    check = validators.matches(namespace, "host", "container:%S+"), doc = namespace },
  { name = "uts_mode", type = "string", check = validators.one_of "host", engine = "HostConfig.UTSMode",
    policy = { "docker.allowed_modes.uts" }, doc = "host: use the host names of the host" },
  { name = "userns_mode", type = "string", check = validators.one_of "host", engine = "HostConfig.UsernsMode",
    policy = { "docker.allowed_modes.userns" }, doc = "host: no mapping, if the engine maps users" },

  -- how much it may use
  { name = "cpu_hard_limit", type = "boolean", default = false, engine = "HostConfig.CpuQuota",
    doc = "make resources.cpu a limit, even if the host is idle" },
  { name = "cpu_cfs_period", type = "integer", default = 100000, check = validators.range(1000, 1000000),
    engine = "HostConfig.CpuPeriod", doc = "period of the hard limit in microseconds" },
  { name = "cpuset_cpus", type = "string", engine = "HostConfig.CpusetCpus", doc = "CPUs of the host to run on: 0-2,7",
    check = validators.matches("a list of CPUs such as '0-2,7'", "%d[%d,-]*") },
  { name = "memory_hard_limit", type = "integer", check = validators.range(0), engine = "HostConfig.Memory",
    doc = "limit in MB; resources.memory is then only reserved" },
  { name = "oom_score_adj", type = "integer", check = validators.range(0, 1000), engine = "HostConfig.OomScoreAdj",
    policy = { "docker.oom_score_adj" }, doc = "higher: the kernel kills it earlier; left out, docker.oom_score_adj" },
  { name = "pids_limit", type = "integer", check = validators.range(0, 4194304), engine = "HostConfig.PidsLimit",
    policy = { "docker.pids_limit" }, doc = "limit of processes; 0 or left out, docker.pids_limit" },
  { name = "sysctl", type = "map", of = "string", engine = "HostConfig.Sysctls", doc = "kernel parameters of its namespaces" },
  { name = "ulimit", type = "map", of = "string", check = limit, check_key = limit_name, engine = "HostConfig.Ulimits",
    doc = "limit = 'soft:hard', such as nofile = '2048:4096'" },
}, rows_of.unused "SSL isolation ssl")
