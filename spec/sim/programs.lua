-- The program in the simulation's containers: a shell script that a real engine can run too, controlled by its arguments.
local M = {}

---@class Program
---@field run? number      seconds until it exits by itself; without it, it runs for ever
---@field exit? integer    its exit code then
---@field term? integer    its exit code after a signal; by default 128 + the signal
---@field ignore? integer  1: only SIGKILL ends it
---@field oom? integer     1: after `run` seconds the kernel kills it for lack of memory (simulated engine)
---@field well? number     seconds after which its checks pass; by default at once (simulated engine)
---@field sick? number     seconds after which they fail again (simulated engine)

local KEYS = { "run", "exit", "term", "ignore", "oom", "well", "sick" }

local SCRIPT = [[
for option; do export "$option"; done
for signal in 15=TERM 2=INT 3=QUIT; do
  if [ "$ignore" ]; then trap "" ${signal#*=}; else trap "exit ${term:-$((128 + ${signal%=*}))}" ${signal#*=}; fi
done
if [ "$run" ]; then sleep "$run" & wait $!; exit "${exit:-0}"; fi
while :; do sleep 3600 & wait $!; done]]

--- The command of a container, as the engine and a job's `config` take it.
---@param program Program
---@param script? string  instead of the one that a real engine can run
---@return string[]
function M.command(program, script)
  local command = { "sh", "-c", script or SCRIPT, "sim" }
  for _, key in ipairs(KEYS) do
    if program[key] then command[#command + 1] = ("%s=%s"):format(key, program[key]) end
  end
  return command
end

--- The program of a command; nil if the command is not of this file.
---@param command? string[]
---@return Program?
function M.parse(command)
  if not command or command[4] ~= "sim" then return nil end
  local program = {}
  for i = 5, #command do
    local key, value = command[i]:match "^(%w+)=(.*)$"
    program[key] = math.tointeger(tonumber(value)) or tonumber(value)
  end
  return program
end

local SIGNALS = { INT = 2, QUIT = 3, KILL = 9, TERM = 15 }

--- The effect of a signal on a program.
---@param program Program
---@param signal string  "SIGTERM", "TERM" or "15"
---@return integer number
---@return integer? exit_code  nil if the program keeps running
function M.signal(program, signal)
  local number = math.tointeger(tonumber(signal)) or SIGNALS[signal:gsub("^SIG", "")]
  if number == 9 then return 9, 137 end
  if program.ignore then return number end
  return number, program.term or 128 + number
end

--- Whether a program's checks pass.
---@param program Program
---@param age number  seconds that it has run
---@return boolean
function M.is_well(program, age)
  return age >= (program.well or 0) and not (program.sick and age >= program.sick)
end

return M
