job "picky" {
  constraint { attribute = "$attr.driver.docker.version" version = ">= 20.10" }
  constraint { distinct_hosts = true }
  constraint { attribute = "${attr.arch}" operator = "!=" value = "arm" }
  group "g" {
    constraints = [{ attribute = "${attr.unique.hostname}" regexp = "^web" }]
    task "t" {
      config { image = "busybox" }
      constraint { attribute = "${meta.ssd}" operator = "is_set" }
    }
  }
}
