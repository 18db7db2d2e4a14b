"""Simulation, measurement and the demo. Only the command line uses it, for `generate-synthetic`."""
