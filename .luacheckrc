std = "lua54"
max_line_length = 140
exclude_files = { "build", "spec/job/corpus" }
files["spec"] = { std = "+busted" }
files["scripts/example/web.lua"] = { read_globals = { "job", "group", "task" } }
files["spec/upgrade/service.lua"] = { read_globals = { "job", "group", "task" } }
