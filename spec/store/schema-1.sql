-- A state as the first version of the schema had it, with a row of each kind.
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

INSERT INTO jobs VALUES ('cache', '{"name":"cache"}', 'running', '2024-11-24T10:00:00.000000001Z');
INSERT INTO allocations VALUES ('a1', 'cache', 'redis', 0, '{"owner":"platform"}', '4242 1000 0f1e');
INSERT INTO tasks VALUES ('a1', 'redis', 'running', 'c0ffee', 'redis:7', 'sha256:7', '[{"label":"db","host_port":20001}]',
  NULL, NULL, 0, 2, '2024-11-24T10:00:02.000000000Z', NULL, NULL, NULL);
INSERT INTO leases VALUES (20001, '0.0.0.0', 'a1', 'redis', 'db', '4242 1000 0f1e', '2024-11-24T10:00:01.000000000Z');
INSERT INTO images VALUES ('redis:7', 'sha256:7', '2024-11-24T10:00:01.000000000Z', '2024-11-24T10:00:02.000000000Z');
INSERT INTO events VALUES (7, '2024-11-24T10:00:02.000000000Z', 'cache', 'redis', 'redis', 'a1', 'started',
  '{"time":"2024-11-24T10:00:02.000000000Z","job":"cache","event":"started"}');

PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
