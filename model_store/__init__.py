"""Checkpoints: their prompts, files, training and evaluation. Never imports `service`."""
