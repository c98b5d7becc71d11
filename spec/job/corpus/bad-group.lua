return group "g" { task "t" { config = { image = "x" } } }
