"""Calibrations: maps from raw scores to probabilities, their fit, and the evidence for them."""
