std = "lua54"
max_line_length = 140
max_cyclomatic_complexity = 28
exclude_files = { "build", "spec/job/corpus" }
files["spec"] = { std = "+busted", max_cyclomatic_complexity = false }
files["scripts/example/web.lua"] = { read_globals = { "job", "group", "task" } }
files["spec/upgrade/service.lua"] = { read_globals = { "job", "group", "task" } }
