"""Dagster around the assets: partitions, jobs, schedules, checks, and what may stand in its metadata."""
