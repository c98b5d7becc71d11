-- The config file of a dockrun that a spec starts without a config file of its own.
return {}
