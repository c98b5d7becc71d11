job "x" {
  # Gr√ºﬂe
}
