-- A process that does nothing: its start and end.
local compare = require("spec.bench.compare").compare
local peers = require "spec.bench.peers"

return function()
  return {
    compare("Start and end of a process", "ms", 15, {
      { "floor", "/bin/true", function() peers.must("/bin/true", {}) end },
      { "dockrun", "dockrun -e ''", function() peers.dockrun { "-e", "" } end },
      { "dockrun", "dockrun version", function() peers.dockrun { "version" } end },
      { "peer", "lua5.4 -e ''", function() peers.must("lua5.4", { "-e", "" }) end },
      { "peer", "docker --version", function() peers.must("docker", { "--version" }) end },
      { "peer", "python3 -c 'import docker'", function() peers.must("/usr/bin/python3", { "-c", "import docker" }) end,
        needs = "python3-docker" },
    }),
  }
end
