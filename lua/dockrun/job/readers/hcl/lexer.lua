--- Reads the tokens of HCL 1, one at a time, with their places. The tokens are those of the scanner that Nomad 0.1 to 0.4
--- uses (https://github.com/hashicorp/hcl, hcl/scanner, hcl/strconv).

local lpeg = require "lpeg"
local numbers = require "dockrun.job.readers.hcl.numbers"
local line_index = require "dockrun.job.line_index"

local C, Cc, Cp, P, R, S = lpeg.C, lpeg.Cc, lpeg.Cp, lpeg.P, lpeg.R, lpeg.S

---@class HclToken
---@field kind "name"|"string"|"heredoc"|"number"|"{"|"}"|"["|"]"|"="|","|"end"|"?"
---@field value string|number  what a name, a string or a number means
---@field from integer         its first byte
---@field after integer        the byte after its last

---@class HclLexer: HclToken   the token that was read last
---@field text string
---@field places Positions
local Lexer = {}
Lexer.__index = Lexer

-- Blanks and quotes of typography, U+00A0, U+2000 to U+207F and U+3000 to U+303F, are no letters.
local typography = P "\xc2\xa0" + P "\xe2\x80" + P "\xe2\x81" + P "\xe3\x80"
local letter = R("az", "AZ") + "_" + (R "\x80\xff" - typography)
local digit = R "09"

local rest_of_line = (1 - P "\n") ^ 0
local comment = P "#" * rest_of_line + P "//" * rest_of_line + P "/*" * (1 - P "*/") ^ 0 * "*/"
local gap = S " \t\r\n" ^ 0
local blank = gap * (comment * gap) ^ 0

local unmarked = (1 - S '"\\\n$') ^ 0
local plain = unmarked * (P "$" * -P "{" * unmarked) ^ 0  -- text of a string without escapes or names

local further = R("az", "AZ", "09") + S "_-."
local name = letter * further ^ 0 * (letter * further ^ 0) ^ 0

local token = blank * Cp() * (
  Cc "name" * C(name)
  + C(S "{}[]=,") * Cc(false)
  + Cc "string" * '"' * C(plain) * '"'
  + Cc "number" * #(P "-" ^ -1 * P "." ^ -1 * digit) * Cc(false)
  + Cc "string" * #P '"' * Cc(false)
  + Cc "heredoc" * #P "<<" * Cc(false)
  + Cc "end" * -P(1) * Cc(false)
  + Cc "?" * Cc(false)) * Cp()

local plain_piece = C(plain) * Cp()

local function bytes(base) return function(digits) return string.char(tonumber(digits, base)) end end

local function character(digits)
  local code = tonumber(digits, 16)
  local surrogate = code >= 0xd800 and code <= 0xdfff
  return code <= 0x10ffff and not surrogate and utf8.char(code) or nil
end

-- UTF-16's two halves of one character, as JSON writes it.
local function pair(high, low)
  return utf8.char(0x10000 + ((tonumber(high, 16) & 0x3ff) << 10) + (tonumber(low, 16) & 0x3ff))
end

local controls = { a = "\a", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", v = "\v", ["\\"] = "\\", ['"'] = '"' }
local octal, hex = R "07", R("09", "af", "AF")
local function times(pattern, n) return n == 1 and pattern or pattern * times(pattern, n - 1) end
local escape = P "\\" * (
  S 'abfnrtv\\"' / controls
  + C(R "03" * octal * octal) / bytes(8)
  + "x" * C(times(hex, 2)) / bytes(16)
  + "u" * C(S "dD" * S "89abAB" * times(hex, 2)) * "\\u" * C(S "dD" * S "cdefCDEF" * times(hex, 2)) / pair
  + "u" * C(times(hex, 4)) / character
  + "U" * C(times(hex, 8)) / character) * Cp()

---@param text string  UTF-8, with "\n" at the end of lines
---@return HclLexer
function Lexer.new(text)
  return setmetatable({ text = text, after = 1, places = line_index.new(text) }, Lexer)
end

--- Line and column of a byte, in characters, and the first byte of its line.
---@param offset integer
---@return integer line
---@return integer column
---@return integer begin
function Lexer:position(offset) return self.places:of(offset) end

--- The blanks before the first thing on the line that begins at a byte.
---@param begin integer
---@return integer
function Lexer:indent(begin) return self.text:match("^[ \t]*()", begin) - begin end

---@class HclProblem  what a lexer and a parser raise
---@field message string
---@field line integer
---@field column integer

--- Raises a problem at a byte.
---@param offset integer
---@param message string
function Lexer:fail(offset, message)
  local line, column = self:position(offset)
  error({ message = message, line = line, column = column }, 0)
end

local LONGEST = 40  -- characters of the file in a message

local function shorten(text)
  local cut = utf8.offset(text, LONGEST + 1)
  if cut and cut <= #text then text = text:sub(1, cut - 1) .. "…" end
  return (text:gsub("%c", "?"))
end

--- The last token in a message: 'redis', "a string", the end of the file.
---@return string
function Lexer:found()
  if self.kind == "end" then return "the end of the file" end
  if self.kind == "heredoc" then return "a heredoc" end
  if self.kind == "string" then return shorten(self.text:sub(self.from, self.after - 1)) end
  return "'" .. shorten(self.text:sub(self.from, self.after - 1)) .. "'"
end

-- `${…}` is kept as written, with its quotes: interpolate.lua reads it when the task starts.
local function interpolation(self, from)
  local at, depth = from + 2, 1
  while depth > 0 do
    local brace = self.text:find("[{}]", at)
    if not brace then self:fail(from, "the '${' that begins here is not closed: found the end of the file, expected '}'") end
    depth = depth + (self.text:byte(brace) == 0x7b and 1 or -1)
    at = brace + 1
  end
  return self.text:sub(from, at - 1), at
end

local function escaped(self, from)
  local value, after = escape:match(self.text, from)
  if value then return value, after end
  local what = self.text:match("^\\[uUx]%x*", from) or self.text:match("^\\" .. utf8.charpattern, from) or "\\"
  return self:fail(from, ("found '%s', expected an escape: \\n, \\t, \\\", \\\\, \\u and 4 hexadecimal digits …"):format(shorten(what)))
end

-- A string with escapes or names.
local function string_slowly(self)
  local text, parts, at = self.text, {}, self.from + 1
  while true do
    local piece, next_at = plain_piece:match(text, at)
    parts[#parts + 1], at = piece, next_at
    local stop = text:sub(at, at)
    if stop == '"' then break end
    if stop == "" or stop == "\n" then
      self:fail(self.from, ("the string that begins here is not closed: found the end of the %s, expected '\"'"):format(
        stop == "" and "file" or "line"))
    end
    parts[#parts + 1], at = (stop == "$" and interpolation or escaped)(self, at)
  end
  self.value, self.after = table.concat(parts), at + 1
end

-- For `<<-`: removes the indent of the closing word if every line has it. Blank lines do not count.
local function unindent(lines, indent)
  for _, line in ipairs(lines) do
    if line:sub(1, #indent) ~= indent and line:find "%S" then return end
  end
  for i, line in ipairs(lines) do lines[i] = line:sub(1, #indent) == indent and line:sub(#indent + 1) or "" end
end

local function heredoc(self)
  local dash, word, at = self.text:match("^<<(%-?)([%w_\x80-\xff]+)[ \t\r]*\n()", self.from)
  if not word then
    self:fail(self.from, "found '<<' that begins no heredoc, expected <<WORD or <<-WORD, and then the end of the line")
  end
  local lines = {}
  while at <= #self.text do
    local line, next_at = self.text:match("^([^\n]*)\n?()", at)
    local indent, rest = line:match "^([ \t]*)([^ \t\r]*)[ \t\r]*$"
    if rest == word then
      if dash == "-" then unindent(lines, indent) end
      lines[#lines + 1] = ""
      self.value, self.after = table.concat(lines, "\n"), at + #line
      return
    end
    lines[#lines + 1], at = line, next_at
  end
  self:fail(self.from, ("the heredoc that begins here is not closed: found the end of the file, expected a line with '%s' alone"):format(
    shorten(word)))
end

local function number(self)
  local value, after, why = numbers.read(self.text, self.from)
  if not value then self:fail(self.from, why) end
  self.value, self.after = value, after
end

local function stray(self)
  if self.text:find("^/%*", self.from) then
    self:fail(self.from, "the comment that begins here is not closed: found the end of the file, expected '*/'")
  end
  self.after = select(2, self.text:find(utf8.charpattern, self.from)) + 1
end

local slow = { string = string_slowly, heredoc = heredoc, number = number, ["?"] = stray }

--- Reads the next token.
---@return HclLexer self
function Lexer:next()
  self.from, self.kind, self.value, self.after = token:match(self.text, self.after)
  local more = self.value == false and slow[self.kind]
  if more then more(self) end
  return self
end

return Lexer
