"""The main path: taking events in, publishing what is due, restating a month, and the way on after a restore."""
