-- The two forms in which the engine streams, from bytes alone: multiplexed frames, and documents a line each.
local frames = require "dockrun.core.frames"

local function frame(stream, text) return string.pack(">BxxxI4", stream, #text) .. text end

-- Feeds a text cut into pieces, each of so many bytes; returns all items.
local function feed(decoder, text, size)
  local items = {}
  for at = 1, #text, size do
    for _, item in ipairs(assert(decoder:feed(text:sub(at, at + size - 1)))) do items[#items + 1] = item end
  end
  return items
end

-- Pieces of one stream that follow each other, as one.
local function joined(items)
  local all = {}
  for _, item in ipairs(items) do
    local last = all[#all]
    if last and last[1] == item[1] then last[2] = last[2] .. item[2] else all[#all + 1] = { item[1], item[2] } end
  end
  return all
end

describe("a decoder of frames", function()
  local text = frame(1, "out\n") .. frame(2, "err\n") .. frame(1, "") .. frame(1, "\1\0\0\0\0\0\0\4") .. frame(0, "in")
    .. frame(2, "") .. frame(3, "the engine's own")
  local expected = {
    { "stdout", "out\n" }, { "stderr", "err\n" }, { "stdout", "\1\0\0\0\0\0\0\4" }, { "stdin", "in" }, { "error", "the engine's own" },
  }

  it("tells streams apart, whole and split at any byte", function()
    for size = 1, #text do
      local decoder = frames.decoder "frames"
      assert.same(expected, joined(feed(decoder, text, size)), size .. " bytes at a time")
      assert.equal(0, decoder:pending())
    end
    for at = 1, #text - 1 do
      local decoder = frames.decoder "frames"
      local items = assert(decoder:feed(text:sub(1, at)))
      table.move(assert(decoder:feed(text:sub(at + 1))), 1, #text, #items + 1, items)
      assert.same(expected, joined(items), "split after " .. at)
    end
  end)

  it("gives a whole frame as one item, and what is there of one that is not", function()
    local decoder = frames.decoder "frames"
    assert.same({ { "stdout", "abc" } }, decoder:feed(frame(1, "abc")))
    assert.same({ { "stderr", "ab" } }, decoder:feed(frame(2, "abcdef"):sub(1, 10)))
    assert.equal(4, decoder:pending())
    assert.same({ { "stderr", "cdef" } }, decoder:feed "cdef")
    assert.same({}, decoder:feed "\1\0\0")
    assert.equal(3, decoder:pending())
  end)

  it("takes a frame of any size in pieces, and keeps none of it", function()
    local decoder, count = frames.decoder "frames", 0
    local size = 0xffffffff
    assert.same({}, decoder:feed(string.pack(">BxxxI4", 1, size)))
    assert.equal(size, decoder:pending())
    local chunk = ("x"):rep(3 * 1024 * 1024)
    for _, item in ipairs(decoder:feed(chunk)) do
      assert.equal("stdout", item[1])
      assert.is_true(#item[2] <= 1024 * 1024)
      count = count + #item[2]
    end
    assert.equal(#chunk, count)
    assert.equal(size - #chunk, decoder:pending())
  end)

  it("gives what came before a fault, then the error, for good", function()
    for _, noise in ipairs { "hello wo", "\4\0\0\0\0\0\0\1", "\1\1\0\0\0\0\0\1", "\1\0\1\0\0\0\0\1", "\1\0\0\1\0\0\0\1" } do
      local decoder = frames.decoder "frames"
      assert.same({ { "stdout", "fine" } }, decoder:feed(frame(1, "fine") .. noise))
      for _ = 1, 2 do
        local items, err = decoder:feed(frame(1, "more"))
        assert.is_nil(items)
        assert.equal("protocol", err.kind)
        assert.matches("not a log frame", err.message)
        assert.matches("tty = true", err.message)
      end
    end
  end)
end)

describe("a decoder of lines", function()
  local text = '{"a":1}\n\r\n{"b":"\\n"}\r\n\n\nplain text\n{"open'

  it("splits at line breaks of both kinds and skips empty lines, at any split", function()
    for size = 1, #text do
      local decoder = frames.decoder "lines"
      assert.same({ '{"a":1}', '{"b":"\\n"}', "plain text" }, feed(decoder, text, size))
      assert.equal(6, decoder:pending())
      assert.same({ '{"open"}' }, decoder:feed '"}\n')
    end
  end)

  it("takes a line up to 4 MiB, and calls a longer one a fault", function()
    local decoder = frames.decoder "lines"
    local long = ("x"):rep(4 * 1024 * 1024)
    assert.same({}, decoder:feed(long))
    assert.equal(#long, #assert(decoder:feed "\n")[1])
    assert.same({}, decoder:feed(long))
    local items, err = decoder:feed "x"
    assert.is_nil(items)
    assert.same({ "protocol", "a line of more than 4 MiB" }, { err.kind, err.message })
  end)

  it("keeps carriage returns and zeros inside of a line", function()
    assert.same({ "a\rb\0c" }, frames.decoder "lines":feed "a\rb\0c\r\n")
  end)
end)

it("a decoder is of one of these kinds", function()
  assert.matches("invalid option 'words'", select(2, pcall(frames.decoder, "words")))
  assert.equal("decoder (lines)", tostring(frames.decoder "lines"))
end)
