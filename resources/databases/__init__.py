"""Databases that events are read from: one query, one read-only snapshot, as Arrow batches.

`addresses` says which database is meant and how it is opened; each of the others reads one kind.
"""
