-- JSON beyond what lua-cjson says: integers of full precision, empty lists, null members.
local json = require "dockrun.core.json"

local function round(value) return json.decode(json.encode(value)) end

describe("JSON", function()
  it("keeps integers whole, of any size that Lua has", function()
    for _, n in ipairs {
      0, -1, 99999999999999, 100000000000000, 2 ^ 53 | 0, (2 ^ 53 | 0) + 1, 1234567890123456789, -1234567890123456789,
      math.maxinteger, math.mininteger,
    } do
      assert.equal(("%d"):format(n), json.encode(n))
      local back = json.decode(("%d"):format(n))
      assert.equal("integer", math.type(back), n)
      assert.equal(n, back)
      assert.same({ a = { n, { n } } }, round { a = { n, { n } } })
    end
  end)

  it("makes whole doubles integers, and leaves the others", function()
    assert.equal("integer", math.type(json.decode "5.0"))
    assert.equal("integer", math.type(json.decode "1e3"))
    assert.equal(0.1, json.decode "0.1")
    assert.equal(18446744073709551615.0, json.decode "18446744073709551615") -- past what Lua has
    assert.equal(1e300, json.decode "1e300")
    assert.equal("0.25", json.encode(0.25))
  end)

  it("takes long digits for a number where they are one alone", function()
    local text = [[{"1234567890123456789":"1234567890123456789","a\"1234567890123456789":[0.1234567890123456789,]]
      .. [[-1234567890123456789,1234567890123456789e0,"\\"]}]]
    local value = assert(json.decode(text))
    assert.equal("1234567890123456789", value["1234567890123456789"])
    local list = value['a"1234567890123456789']
    assert.same({ 0.1234567890123456789, -1234567890123456789, "\\" }, { list[1], list[2], list[4] })
    assert.equal(1234567890123456789 + 0.0, list[3] + 0.0)
  end)

  it("tells an empty list from an empty object", function()
    assert.equal("{}", json.encode {})
    assert.equal("[]", json.encode(json.array()))
    assert.equal("[]", json.encode(json.array {}))
    assert.equal('{"a":[]}', json.encode { a = json.array() })
    assert.equal("[[],{}]", json.encode { json.array(), {} })
    assert.is_true(json.is_array(json.decode "[1]"))
    assert.is_false(json.is_array(json.decode "{}"))
    assert.is_true(json.is_array(json.decode "[]"))
    assert.is_false(json.is_array "text")
  end)

  it("writes what it has read: lists are lists, objects are objects", function()
    for _, text in ipairs {
      "[]", "{}", "[[],{},[[]],[1]]", '{"a":[]}', '{"a":{}}', '"[]"', '[" [ ] "]', '{"[]":"[]"}', '["\\"[]\\\\",[]]',
      ("["):rep(150) .. ("]"):rep(150),
    } do
      assert.equal(text, json.encode(json.decode(text)))
    end
    assert.equal("[[],[],{}]", json.encode(json.decode " [ [ ] , [\n\t\r] , { } ] "))
    local value, err = json.decode '{"a":[],"b":x}'
    assert.same({ nil, 13 }, { value, err.offset })
  end)

  it("writes floats with the fewest digits that give them again", function()
    for text, n in pairs {
      ["0.1"] = 0.1, ["0.30000000000000004"] = 0.1 + 0.2, ["0.3333333333333333"] = 1 / 3, ["9007199254740992"] = 2.0 ^ 53,
      ["2251799813685249.5"] = 2251799813685249.5, ["1e+300"] = 1e300, ["5"] = 5.0, ["1.7976931348623157e+308"] = 1.7976931348623157e308,
    } do
      assert.equal(text, json.encode(n))
    end
    local r = require("spec.fuzz.random").new(1)
    for _ = 1, 2000 do
      local n = string.unpack("d", string.pack("i8", r:int(math.mininteger // 2, math.maxinteger // 2) * 2 + r:int(0, 1)))
      if n == n and n - n == 0 then assert.is_true(n == round { n }[1] + 0.0, json.encode(n)) end
    end
  end)

  it("keeps the digits of a number where that is asked for", function()
    for _, text in ipairs {
      "18446744073709551615", "-18446744073709551617", "9007199254740993.0", "3.14159265358979312", "1e400", "1E-400",
    } do
      assert.same({ text, { a = text } }, json.decode(('[%s,{"a":%s}]'):format(text, text), true))
    end
    for text, n in pairs {
      ["0.5"] = 0.5, ["12"] = 12, ["9223372036854775807"] = math.maxinteger, ["-3"] = -3, ["1e+300"] = 1e300, ["1.10"] = 1.1,
      ["1e3"] = 1000, ["1099511627776.0"] = 1 << 40,
      ["5.0"] = 5, ["-1.50"] = -1.5, ["1E+2"] = 100, ["0.000"] = 0, ["0e5"] = 0, ["100000000000000000000000"] = 1e23, ["25e-2"] = 0.25,
      ["1000.25"] = 1000.25, ["0.00000000000000000000000001"] = 1e-26,
    } do
      local value = json.decode("[" .. text .. "]", true)[1]
      assert.same({ n, math.type(n) }, { value, math.type(value) }, text)
      assert.equal(n, json.number(text), text)
    end
    assert.is_nil((json.number "x"))
    for _, text in ipairs { "[01.5]", "[1e]", "[.5]", "[1.5.5]", "[--1.5]", "[1.5e1.5]", "[1.5" } do
      assert.is_nil((json.decode(text, true)), text)
    end
  end)

  it("drops null members, and keeps a list's", function()
    assert.same({ b = 1 }, json.decode '{"a":null,"b":1}')
    assert.same({ json.null, 1 }, json.decode "[null,1]")
    assert.equal(json.null, json.decode "null")
    assert.equal("[null,1]", json.encode { json.null, 1 })
  end)

  it("keeps text as it is", function()
    for _, text in ipairs { "", "\0", "\"\\/\n", "ü\u{10FFFF}", ("x"):rep(100000) } do assert.equal(text, round(text)) end
    assert.equal("\u{1F600}", json.decode [["\ud83d\ude00"]])
  end)

  it("does not take what a text says for its own marks", function()
    local marked = json.encode { 1234567890123456789, json.array() }
    assert.equal("[1234567890123456789,[]]", marked)
    assert.equal("r:0000000000000000[]", round "r:0000000000000000[]")
  end)

  for what, text in pairs {
    ["nothing"] = "", ["half a value"] = '{"a":', ["two values"] = "{}{}",
    ["what follows a NUL byte"] = "{}\0{}", ["a NUL byte at the end"] = "{}\0",
    ["a bare word"] = "nonsense",
    ["half a long number"] = "[1234567890123456789", ["a long number with a zero before it"] = "[01234567890123456789]",
    ["a string that does not end"] = '"1234567890123456789', ["a number of another notation"] = "[0x10]", ["no number"] = "[nan]",
  } do
    it("refuses " .. what .. ", and says where", function()
      local value, err = json.decode(text)
      assert.is_nil(value)
      assert.equal("invalid", err.kind)
      assert.equal("integer", math.type(err.offset))
      assert.is_true(err.offset <= #text + 1, err.message)
    end)
  end

  it("refuses to write what has no JSON", function()
    local cycle = {}
    cycle.cycle = cycle
    for what, value in pairs { ["a function"] = { print }, ["a cycle"] = cycle, ["not a number"] = { 0 / 0 }, ["a key"] = { [{}] = 1 } } do
      assert.is_false(pcall(json.encode, value), what)
    end
  end)

  it("nests to a depth, and no further", function()
    local function nested(depth) return ("["):rep(depth) .. ("]"):rep(depth) end
    assert.is_table(json.decode(nested(200)))
    assert.is_nil((json.decode(nested(100000))))
    local value = {}
    for _ = 1, 150 do value = { value, 12345678901234567 } end
    assert.same(value, round(value))
  end)
end)
