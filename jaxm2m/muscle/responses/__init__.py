"""Measured responses: MEPs, their amplitudes, scaling, scores and synergies."""
