#!/usr/bin/env dockrun
-- Draws what a command prints on a terminal as an SVG:
--
--   script -qec scripts/demo /dev/null | dockrun scripts/picture.lua scripts/demo >docs/demo.svg
--
-- Understands the colours that dockrun uses (SGR 0, 1, 31 to 36, 90).
local title = arg[1] or "dockrun"
local colors = {
  ["31"] = "#ff7b72", ["32"] = "#7ee787", ["33"] = "#e3b341",
  ["34"] = "#79c0ff", ["35"] = "#d2a8ff", ["36"] = "#56d4dd", ["90"] = "#8b949e",
}
local width, height, left, top = 8.4, 19, 16, 52

local function escape(text)
  return (text:gsub('[&<>"]', { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }))
end

-- One line as tspans, each in the colour that was set before it.
local function spans(line)
  local out, style = {}, ""
  for text, code in (line .. "\27[0m"):gmatch "(.-)\27%[([%d;]*)m" do
    if text ~= "" then out[#out + 1] = ("<tspan%s>%s</tspan>"):format(style, escape(text)) end
    style = ""
    for part in code:gmatch "%d+" do
      if colors[part] then style = style .. (' fill="%s"'):format(colors[part]) end
      if part == "1" then style = style .. ' font-weight="bold"' end
    end
  end
  return table.concat(out)
end

local lines, columns = {}, 0
for line in io.lines() do
  line = line:gsub("\r$", "")
  lines[#lines + 1] = line
  columns = math.max(columns, utf8.len((line:gsub("\27%[[%d;]*m", ""))) or #line)
end

local w, h = math.ceil(columns * width + 2 * left), top + #lines * height + 8
print(([[<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">
<rect width="%d" height="%d" rx="8" fill="#0d1117"/>
<circle cx="20" cy="18" r="6" fill="#ff5f56"/><circle cx="40" cy="18" r="6" fill="#ffbd2e"/><circle cx="60" cy="18" r="6" fill="#27c93f"/>
<text x="%d" y="23" fill="#8b949e" font-family="monospace" font-size="13" text-anchor="middle">%s</text>
<g fill="#e6edf3" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">]])
  :format(w, h, w, h, escape(title), w, h, w // 2, escape(title)))
for i, line in ipairs(lines) do
  if line ~= "" then print(('<text x="%d" y="%d">%s</text>'):format(left, top + (i - 1) * height, spans(line))) end
end
print "</g>\n</svg>"
