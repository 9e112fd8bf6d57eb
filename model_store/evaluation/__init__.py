"""Benchmarks, metrics, and the plain reference that scores are held to."""
