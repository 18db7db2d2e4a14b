"""Dagster sensors. Empty in this version: what starts a run is a person, a backfill or `dpdau run`."""
