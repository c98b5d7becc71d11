# Kommentar: ÄÖÜ, 日本語
job "unicode" {
  meta { größe = "groß" "名前" = "値" emoji = "🐳" }
  task "t" { config { image = "busybox:1" } env { GREETING = "grüß Gott — 你好" } }
}
