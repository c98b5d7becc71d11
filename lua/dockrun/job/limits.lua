--- How large a job may be, and how long reading it may take: the defaults of the options limits.NAME.
return {
  job_bytes = 8 << 20,    -- of a job file
  job_seconds = 10,       -- of the processor
  problems = 100,         -- that are reported
  allocs_per_job = 1000,  -- the counts of all groups together
}
