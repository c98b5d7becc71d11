local versions = require "dockrun.job.version"

describe("a version", function()
  -- What hashicorp/go-version says of each.
  for _, case in ipairs {
    { "1.2.3", "1.2.3", true }, { "1.2", "= 1.2.0", true }, { "v1.2.3", ">= 1.0, < 2", true }, { "2.0", ">= 1.0, < 2", false },
    { "1.2.3", "~> 1.2", true }, { "1.9", "~> 1.2", true }, { "2.0", "~> 1.2", false }, { "1.2.9", "~> 1.2.3", true },
    { "1.3.0", "~> 1.2.3", false }, { "1.2.2", "~> 1.2.3", false }, { "1.2.3", "!= 1.2.4", true }, { "10.0", "> 9.9", true },
    { "1.2.3-beta", "1.2.3", false }, { "1.2.3-beta", "> 1.0", false }, { "1.2.3-beta.2", "> 1.2.3-beta.1", true },
    { "1.2.4-beta", "> 1.2.3-beta", false }, { "1.2.3", "> 1.2.3-rc1", true }, { "1.2.3+build5", "= 1.2.3", true },
    { "20.10.24+dfsg1", ">= 20.10", true }, { "1.2.3-rc1", "~> 1.2.3-beta", true }, { "1.2.3", "~> 1.2.3-beta", false },
    { "2.0", "~> 1", true },
  } do
    local version, condition, expected = table.unpack(case)
    it(("%s %s %s"):format(version, expected and "meets" or "does not meet", condition), function()
      assert.equal(expected, versions.meets(versions.parse(version), assert(versions.conditions(condition))))
    end)
  end

  it("is ordered as semver orders it", function()
    local order = {
      "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0",
    }
    for i = 2, #order do
      assert.is_true(versions.compare(versions.parse(order[i - 1]), versions.parse(order[i])) < 0, order[i])
      assert.is_true(versions.meets(versions.parse(order[i]), versions.conditions("> " .. order[i - 1], true), true))
    end
  end)

  for _, text in ipairs { "", "one", "1..2", "1.", "1.2 3", "99999999999999999999" } do
    it(("is not '%s'"):format(text), function() assert.is_nil(versions.parse(text)) end)
  end

  it("is asked for in words that are known", function()
    local _, why = versions.conditions "=> 1.2"
    assert.matches("no known operator", why)
    _, why = versions.conditions ">= 1.x"
    assert.matches("'1.x' is not a version", why)
    assert.is_nil((versions.conditions("~> 1.2", true)))
  end)
end)
