job "x" {
  meta {
    text = <<-EOF
      one
      two EOF
  }
}
