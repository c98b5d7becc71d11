job "strings" {
  meta {
    empty      = ""
    quote      = "say \"hi\""
    backslash  = "C:\\dir"
    controls   = "a\tb\nc\rd\ae\bf\fg\vh"
    bytes      = "\x41\x7e \101\176"
    accents    = "\u00e9 é \U0001F600 😀"
    halves     = "\ud83d\ude00"
    no_comment = "# // /* */"
    braces     = "{ } [ ] = ,"
    dollars    = "$ $5 $$ 100$"
    escaped    = "$${not.filled.in}"
    tab        = "	"
    "a key, quoted: \"yes\"" = "1"
    dotted.key = "2"
    dashed-key = "3"
    _under     = "4"
    schlüssel  = "5"
  }
}
