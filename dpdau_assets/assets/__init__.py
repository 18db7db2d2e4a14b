"""The assets, each: load, call one core function, save, report."""
