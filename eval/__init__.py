"""Simulation, measurement and the demo: what shows that the project does what it says. Nothing imports it."""
