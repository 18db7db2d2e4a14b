"""Dagster sensors: erasures, arrivals, and what has to be told to a person."""
