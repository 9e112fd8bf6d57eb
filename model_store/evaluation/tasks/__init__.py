"""Evaluation tasks: benchmarks as tables of datasets, and readers of the layouts they come in."""
