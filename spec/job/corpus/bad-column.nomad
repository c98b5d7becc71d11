job "x" {
  /* größer */ meta { "名前" = "🐳🐳" größe = ? }
}
