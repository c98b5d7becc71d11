local nearest = require "dockrun.job.suggest"

describe("the nearest word", function()
  local known = { "image", "command", "args", "network_mode" }

  for _, case in ipairs {
    { "imgae", "image" }, { "imag", "image" }, { "Image", "image" }, { "comand", "command" }, { "networkmode", "network_mode" },
    { "arg", "args" },
  } do
    local typed, meant = table.unpack(case)
    it(("for '%s' is '%s'"):format(typed, meant), function() assert.equal(meant, nearest.word(typed, known)) end)
  end

  it("is none where nothing is near", function() assert.is_nil(nearest.word("privileged", known)) end)
  it("is not looked for where the word is absurdly long", function() assert.is_nil(nearest.word(("i"):rep(1e6), known)) end)

  it("ends a message; else all that is known does", function()
    assert.equal("; did you mean 'image'?", nearest.hint("imgae", known))
    assert.equal("; known: a, b", nearest.hint("privileged", { "a", "b" }, { "unlisted" }))
    assert.equal("; did you mean 'unlisted'?", nearest.hint("unlistd", { "a", "b" }, { "unlisted" }))
    assert.equal("", nearest.hint("anything", {}))
  end)
end)
