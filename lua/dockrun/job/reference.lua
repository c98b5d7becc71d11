--- Parses image references: [registry[:port]/]path[:tag][@digest], with an optional docker:// or https:// before it. The
--- grammar is that of https://github.com/distribution/reference, which the engine uses.

local lpeg = require "lpeg"

local M = {}

local Cg, Ct, P, R, S = lpeg.Cg, lpeg.Ct, lpeg.P, lpeg.R, lpeg.S

local digit, lower, upper = R "09", R "az", R "AZ"
local letter = lower + upper
local function most(pattern, n) return pattern ^ -n end

-- A host has a dot or a port, or is localhost; any other text before a slash is a part of the path.
local label = (letter + digit) * (P "-" ^ 0 * (letter + digit)) ^ 0
local port = P ":" * digit ^ 1
local host = P "[" * (R("09", "af", "AF") + ":") ^ 1 * "]" * port ^ -1
  + P "localhost" * port ^ -1 * #P "/" + label * ((P "." * label) ^ 1 * port ^ -1 + port)

local word = (lower + digit) ^ 1
local part = word * ((P "__" + S "._" + P "-" ^ 1) * word) ^ 0
local path = part * (P "/" * part) ^ 0
local tag = (letter + digit + "_") * most(letter + digit + S "_.-", 127)
local algorithm = letter * (letter + digit) ^ 0 * (S "-_+." * letter * (letter + digit) ^ 0) ^ 0
local hex = R("09", "af", "AF")
local digest = algorithm * ":" * hex ^ 32

local scheme = P "docker://" + "https://" + "http://"
local reference = Ct(scheme ^ -1 * Cg((host * "/") ^ -1 * path, "name") * (P ":" * Cg(tag, "tag")) ^ -1
  * (P "@" * Cg(digest, "digest")) ^ -1) * -1

---@class Reference
---@field name string     with the registry, as the engine expects it in `fromImage`
---@field tag? string     nil if there is a digest
---@field digest? string  "sha256:…"
---@field full string     name:tag or name@digest

-- The hint for an invalid reference: Redis:7 -> redis:7. A tag may be in upper case.
local function hint(text)
  local found = reference:match(text:lower())
  if not found then return "" end
  local from, to = text:lower():find(found.name, 1, true)
  local meant = text:sub(1, from - 1) .. found.name .. text:sub(to + 1)
  return reference:match(meant) and ("; image names are lower case: did you mean '%s'?"):format(meant) or ""
end

--- Parses an image reference. Without a tag, the tag is `latest`; with a digest, the tag is ignored.
--- "quay.io/redis:7" -> { name = "quay.io/redis", tag = "7", full = "quay.io/redis:7" }
---@param text string
---@return Reference? reference
---@return string? why not
function M.parse(text)
  local found = reference:match(text)
  if not found then
    return nil, ("'%s' is not an image reference ([registry/]name[:tag][@digest])%s"):format(text, hint(text))
  end
  if found.digest then return { name = found.name, digest = found.digest, full = found.name .. "@" .. found.digest } end
  found.tag = found.tag or "latest"
  found.full = found.name .. ":" .. found.tag
  return found
end

return M
