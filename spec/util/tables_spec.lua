local tables = require "dockrun.util.tables"

describe("tables", function()
  it("are copied with all tables in them, with and without functions", function()
    local value = { a = { 1, { b = print } }, run = print }
    local copy = tables.copy(value)
    assert.same(value, copy)
    assert.is_true(copy.a ~= value.a and copy.a[2] ~= value.a[2])
    assert.same({ a = { 1, {} } }, tables.copy_data(value))
  end)

  it("are merged, a later one wins", function()
    assert.same({ a = 1, b = 2, c = 3 }, tables.merge({ a = 1, b = 1 }, nil, { b = 2, c = 3 }))
    assert.same({}, tables.merge(nil))
  end)

  it("have their keys in one order", function()
    assert.same({ 1, 2, "a", "b" }, tables.keys { [2] = 0, b = 0, [1] = 0, a = 0 })
  end)

  it("are sets and lists", function()
    assert.same({ a = true, b = true }, tables.set { "a", "b" })
    assert.is_true(tables.contains({ "a" }, "a"))
    assert.is_false(tables.contains({}, "a"))
  end)
end)
