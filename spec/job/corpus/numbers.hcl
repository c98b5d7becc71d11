job "numbers" {
  meta {
    zero = 0
    ten = 10
    negative = -7
    hex = 0x1F
    HEX = 0Xff
    octal = 0755
    half = 0.5
    short = .25
    whole = 3.0
    exponent = 1e3
    small = 25e-2
    large = 9223372036854775807
    negative_fraction = -0.125
    yes = true
    no = false
  }
  group "g" {
    count = 0x2
    task "t" {
      config { image = "busybox:1" }
      resources { cpu = 1e3 memory = 0400 }
      kill_timeout = 2.5
    }
  }
}
