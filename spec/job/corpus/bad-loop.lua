local t = { name = "x" }
t.meta = t
return t
