-- The config of a dockrun that a spec starts, if the spec gives it none.
return {}
