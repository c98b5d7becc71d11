job "x" {
  task "t" {
    config {
      image = "registry.example:5000/Team/Redis:7-Alpine"
      logging {
        type   = "json-file"
        driver = "fluentd"
      }
      volumes            = ["local/a:/a:ro,z", "local/b:/b:rx"]
      dns_search_domains = ["a.example"]
      search_domains     = ["b.example"]
    }
  }
}
