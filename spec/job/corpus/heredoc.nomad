job "heredoc" {
  meta {
    plain = <<EOF
{ "json": "${stays}", "tab": "\t" }
  two blanks before, "quotes" and # no comment
EOF
    indented = <<-END
      server {
        listen 80;

      }
      END
    as_it_is = <<-END
    less than what closes it
      END
    empty = <<X
X
    marked = <<EOF
EOF is not alone here
 EOF2
    EOF
  }

  task "t" {
    config {
      image   = "busybox:1"
      command = "sh"
      args    = ["-c", <<SCRIPT
echo one
echo two
SCRIPT
      , "last"]
    }
  }
}
