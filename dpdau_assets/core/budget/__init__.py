"""What may be published: planning, forecasts, overrides, and the proof that what was published fits its caps."""
