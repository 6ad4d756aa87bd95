"""What each command and stage does, from the configuration to the files it writes."""
