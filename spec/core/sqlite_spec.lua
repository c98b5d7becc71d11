local rmtree = require("pl.dir").rmtree
local sqlite = require "dockrun.core.sqlite"
local uv = require "luv"

describe("sqlite", function()
  local dir, path, opened

  local function open(options)
    local db, err = sqlite.open(path, options)
    if db then opened[#opened + 1] = db end
    return db, err
  end

  before_each(function()
    dir, opened = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-sqlite-XXXXXX")), {}
    path = dir .. "/test.db"
  end)
  after_each(function()
    for _, db in ipairs(opened) do db:close() end
    rmtree(dir)
  end)

  local function refused(kind, part, value, err)
    assert.is_nil(value)
    assert.equal(kind, err.kind)
    assert.is_true(err.code > 0)
    assert.truthy(tostring(err):find(path, 1, true), "the file is not named: " .. tostring(err))
    assert.truthy(tostring(err):find(part, 1, true), tostring(err))
  end

  describe("keeps", function()
    for what, value in pairs {
      ["the largest integer"] = math.maxinteger,
      ["the smallest integer"] = math.mininteger,
      ["a float that is a whole number"] = 3.0,
      ["a fraction"] = 0.1,
      ["text of any alphabet"] = "Größe 大小",
      ["text with a NUL"] = "a\0b",
      ["an empty text"] = "",
      ["bytes that are no text"] = "\xff\xfe\0",
    } do
      it(what .. ", in value and in type", function()
        local db = open()
        assert(db:exec "CREATE TABLE t (v)")
        assert.equal(1, db:run("INSERT INTO t VALUES (?)", value))
        local read = db:value "SELECT v FROM t"
        assert.equal(value, read)
        assert.equal(math.type(value), math.type(read))
        assert.same({ { v = value } }, db:rows "SELECT v FROM t")
      end)
    end

    it("booleans as 1 and 0, and nil as NULL, which a row leaves out", function()
      local db = open()
      assert(db:exec "CREATE TABLE t (a, b, c)")
      assert(db:run("INSERT INTO t VALUES (?, ?, ?)", true, false, nil))
      assert.same({ { a = 1, b = 0 } }, db:rows "SELECT * FROM t")
      assert.is_nil(db:value "SELECT c FROM t")
    end)

    it("blobs, read as strings", function()
      assert.equal("\0\1", open():value "SELECT x'0001'")
    end)
  end)

  it("says how many rows a statement changed", function()
    local db = open()
    assert(db:exec "CREATE TABLE t (n); INSERT INTO t VALUES (1), (2), (3)")
    assert.equal(2, db:run("UPDATE t SET n = n + 10 WHERE n > ?", 1))
    assert.equal(0, db:run("DELETE FROM t WHERE n = ?", 99))
    assert.equal(0, db:run "SELECT * FROM t")
    assert.same({ { n = 1 }, { n = 12 }, { n = 13 } }, db:rows "SELECT n FROM t ORDER BY n")
    assert.same({}, db:rows "SELECT n FROM t WHERE n = 0")
  end)

  it("uses a statement again, also after the schema or what was bound to it has changed", function()
    local db = open()
    assert(db:exec "CREATE TABLE t (n)")
    for i = 1, 3 do assert(db:run("INSERT INTO t VALUES (?)", i)) end
    assert.same({ { n = 1 } }, db:rows "SELECT * FROM t LIMIT 1")
    assert(db:exec "ALTER TABLE t ADD COLUMN m DEFAULT 'new'")
    assert.same({ { n = 1, m = "new" } }, db:rows "SELECT * FROM t LIMIT 1")
    assert.equal(2, db:value("SELECT n FROM t WHERE n = ?", 2))
    assert.equal(3, db:value("SELECT n FROM t WHERE n = ?", 3))
  end)

  it("takes any number of different statements", function()
    local db = open()
    for i = 1, 500 do assert.equal(i, db:value("SELECT " .. i)) end
    assert.equal(1, db:value "SELECT 1")
  end)

  it("does a statement with RETURNING wholly, though value looks at one row", function()
    local db = open()
    assert(db:exec "CREATE TABLE t (n)")
    assert.equal(1, db:value "INSERT INTO t VALUES (1), (2), (3) RETURNING n")
    local other = open()
    assert.equal(3, other:value "SELECT count(*) FROM t")
  end)

  describe("gives a kind to branch on and the file's name for", function()
    it("a row that the schema does not allow", function()
      local db = open()
      assert(db:exec "CREATE TABLE t (n UNIQUE)")
      assert(db:run("INSERT INTO t VALUES (?)", 1))
      refused("constraint", "UNIQUE constraint failed: t.n", db:run("INSERT INTO t VALUES (?)", 1))
      assert.equal(1, db:run("INSERT INTO t VALUES (?)", 2))
    end)

    it("a statement that is wrong", function()
      local db = open()
      refused("store", 'near "SELEC": syntax error', db:rows "SELEC 1")
      refused("store", "no such table: nowhere", db:value "SELECT 1 FROM nowhere")
      refused("store", 'near "nonsense": syntax error', db:exec "SELECT 1; nonsense")
    end)

    it("a file that is not a database", function()
      local file <close> = assert(io.open(path, "w"))
      file:write(("no database "):rep(1000)):flush()
      refused("corrupt", "file is not a database", open():value "SELECT count(*) FROM sqlite_schema")
    end)

    it("writing to what was opened to be read", function()
      assert(open():exec "CREATE TABLE t (n)")
      local db = open { readonly = true }
      assert.equal(0, db:value "SELECT count(*) FROM t")
      refused("readonly", "readonly", db:run "INSERT INTO t VALUES (1)")
    end)

    it("a file that is not there to be read", function()
      refused("store", "unable to open database file", open { readonly = true })
    end)

    it("a lock of another connection, at once or after busy_ms", function()
      local holder, patient = open(), open { busy_ms = 150 }
      assert(holder:exec "CREATE TABLE t (n); BEGIN IMMEDIATE")
      local hasty, before = open(), uv.hrtime()
      refused("busy", "database is locked", hasty:run "INSERT INTO t VALUES (1)")
      local after_hasty = uv.hrtime()
      assert.is_true((after_hasty - before) / 1e6 < 100)
      refused("busy", "database is locked", patient:run "INSERT INTO t VALUES (1)")
      assert.is_true((uv.hrtime() - after_hasty) / 1e6 >= 150)
    end)
  end)

  describe("takes for an error of the program", function()
    for what, case in pairs {
      ["too few values"] = { "1 values for a statement of 2", "SELECT ?, ?", 1 },
      ["too many values"] = { "1 values for a statement of 0", "SELECT 1", 1 },
      ["a value that has no place in a database"] = { "a value is nil, a boolean, a number or a string", "SELECT ?", {} },
      ["two statements where one is expected"] = { "exec takes several", "SELECT 1; SELECT 2" },
      ["no statement"] = { "one statement is expected", "  " },
    } do
      it(what, function()
        local db = open()
        local ok, err = pcall(db.value, db, table.unpack(case, 2))
        assert.is_false(ok)
        assert.truthy(err:find(case[1], 1, true), err)
        assert.equal(1, db:value "SELECT 1;")
      end)
    end

    it("the use of a closed database", function()
      local db = open()
      db:value "SELECT 1"
      db:close()
      db:close()
      assert.has_error(function() db:value "SELECT 1" end, "the database is closed")
      assert.equal(("database (%s, closed)"):format(path), tostring(db))
    end)

    it("options that are none", function()
      assert.has_error(function() sqlite.open(path, { busy_ms = -1 }) end)
      assert.has_error(function() sqlite.open(path, true) end)
    end)
  end)

  it("is closed at the end of its scope, and its locks with it", function()
    do
      local db <close> = sqlite.open(path)
      assert(db:exec "CREATE TABLE t (n); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
      assert.equal(("database (%s)"):format(path), tostring(db))
    end
    local db = open()
    assert.equal(1, db:run "INSERT INTO t VALUES (2)")
    assert.same({ { n = 2 } }, db:rows "SELECT n FROM t")
  end)
end)
