"""The keyed users of each day and the sketches built from them: folding, removing, rebuilding."""
