-- A job file has no io.
local secret = io.open("/etc/shadow"):read "a"
return job(secret) {}
