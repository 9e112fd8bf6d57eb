"""Benchmarks, metrics, the gate of promotions, and the oracle of scores."""
