"""DVC's entry points: load the config, call pfmsmt, write the outputs."""
