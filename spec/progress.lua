--- Busted's output for these specs: a line for each file, each failure as soon as it happens, and the counts at the end.

---@param options table  busted's
---@return table handler
return function(options)
  local busted = require "busted"
  options.deferPrint = true  -- no dots
  local handler = require "busted.outputHandlers.plainTerminal"(options)
  local examples, failures = 0, 0

  local function say(text)
    io.write(text, "\n")
    io.flush()
    return nil, true
  end

  local function tell_failure(element, _, message)
    failures = failures + 1
    return say(("FAILED: %s: %s"):format(handler.getFullName(element), tostring(message):match "[^\n]*"))
  end

  busted.subscribe({ "file", "start" }, function()
    examples, failures = 0, 0
    return nil, true
  end)
  busted.subscribe({ "test", "end" }, function()
    examples = examples + 1
    return nil, true
  end)
  busted.subscribe({ "failure" }, tell_failure)
  busted.subscribe({ "error" }, tell_failure)
  busted.subscribe({ "file", "end" }, function(file)
    local failed = failures > 0 and (", %d FAILED"):format(failures) or ""
    return say(("%s: %d%s, %.1f s"):format(file.name, examples, failed, file.duration or 0))
  end)
  return handler
end
