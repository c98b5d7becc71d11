job "x" {
  hooks { prestart = "function() end" prestrat = 1 }
}
