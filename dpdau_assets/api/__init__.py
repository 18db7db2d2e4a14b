"""The HTTP edge: routes, keys, bounds, limits and logs. It calls the core as the command line does; no Dagster here."""
