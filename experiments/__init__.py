"""One file per experiment; each builds its Config in get_config."""
