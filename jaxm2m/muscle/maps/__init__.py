"""Motor maps: over the scalp, by regression over cortex, and recruitment curves."""
