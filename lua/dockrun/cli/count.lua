-- Reads an option that is a whole number: a converter for argparse.

---@param flag string
---@param least integer
---@return fun(text: string): integer?, string?
return function(flag, least)
  return function(text)
    local number = math.tointeger(tonumber(text))
    if number and number >= least then return number end
    return nil, ("%s takes a whole number from %d on, not '%s'"):format(flag, least, text)
  end
end
