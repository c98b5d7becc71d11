--- The schema of the state, as a list of steps. `PRAGMA user_version` counts the steps that a file has had. A released step
--- is never changed; a new one is added.
local database = require "dockrun.store.database"

local M = {}

-- An owner is a process, see owner.lua. A time is RFC 3339 text unless a comment says otherwise.
local steps = {
  [[
  CREATE TABLE jobs (
    name TEXT PRIMARY KEY, definition TEXT NOT NULL, status TEXT NOT NULL, submitted_at TEXT NOT NULL
  ) STRICT;
  CREATE TABLE allocations (
    id TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs (name) ON DELETE CASCADE, "group" TEXT NOT NULL,
    "index" INTEGER NOT NULL, meta TEXT, owner TEXT NOT NULL
  ) STRICT;
  CREATE INDEX allocations_of_job ON allocations (job);
  CREATE TABLE tasks (
    alloc TEXT NOT NULL REFERENCES allocations (id) ON DELETE CASCADE, task TEXT NOT NULL, state TEXT NOT NULL,
    container_id TEXT, image TEXT, image_id TEXT, ports TEXT, exit_code INTEGER, signal INTEGER, oom INTEGER,
    restarts INTEGER, started_at TEXT, finished_at TEXT, definition TEXT, detail TEXT,
    PRIMARY KEY (alloc, task)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE leases (
    port INTEGER NOT NULL, ip TEXT NOT NULL, alloc TEXT NOT NULL, task TEXT NOT NULL, label TEXT, owner TEXT NOT NULL,
    leased_at TEXT NOT NULL,
    PRIMARY KEY (port, ip)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE images (
    reference TEXT PRIMARY KEY, id TEXT NOT NULL, pulled_at TEXT NOT NULL, last_used_at TEXT NOT NULL
  ) STRICT;
  CREATE TABLE events (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, job TEXT, "group" TEXT, task TEXT, alloc TEXT, event TEXT NOT NULL,
    json TEXT NOT NULL
  ) STRICT;
  ]],
  -- Intents: what a process began, so that another can finish it. And a task's position in the interval of its restart policy
  -- (restart_since: seconds since 1970).
  [[
  CREATE TABLE intents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, alloc TEXT NOT NULL, task TEXT NOT NULL, action TEXT NOT NULL, data TEXT,
    at TEXT NOT NULL, owner TEXT NOT NULL
  ) STRICT;
  ALTER TABLE tasks ADD COLUMN restart_count INTEGER;
  ALTER TABLE tasks ADD COLUMN restart_since REAL;
  ]],
  -- The state's id, which containers carry; a job's engine, and the text that the job was read from.
  [[
  CREATE TABLE identity (id TEXT NOT NULL) STRICT;
  INSERT INTO identity VALUES (lower(hex(randomblob(16))));
  ALTER TABLE jobs ADD COLUMN endpoint TEXT;
  ALTER TABLE jobs ADD COLUMN source TEXT;
  ]],
}

--- The version of the schema that this dockrun writes.
M.version = #steps

--- How many steps the file has had. Changes nothing and locks nothing: it is one statement, because if several processes
--- make the file at once, the commit of a transaction may find it locked.
---@param db Database
---@return integer? version  0 if the file is empty
---@return table? err        kind "store" if this dockrun cannot use it
function M.check(db)
  local found, err = db:rows [[
    SELECT user_version AS seen, (SELECT count(*) FROM sqlite_schema) AS tables FROM pragma_user_version]]
  if not found then return nil, err end
  local seen, tables = found[1].seen, found[1].tables
  if seen > M.version then
    return nil, database.error("store", ("%s was written by a newer dockrun (schema version %d, and this one knows up to %d); "
      .. "use that one, or another --state-dir"):format(db.path, seen, M.version))
  end
  if seen == 0 and tables > 0 then
    return nil, database.error("store", ("%s is another program's database; use another --state-dir"):format(db.path))
  end
  return seen
end

--- Brings the file to M.version, wholly or not at all. Several processes may do so at once.
---@param db Database
---@return true? ok
---@return table? err
function M.run(db)
  return db:transaction(function()
    local seen, err = M.check(db)
    if not seen then return nil, err end
    for i = seen + 1, M.version do db:exec(steps[i]) end  -- one that fails undoes all
    return db:exec(("PRAGMA user_version = %d"):format(M.version))
  end)
end

return M
