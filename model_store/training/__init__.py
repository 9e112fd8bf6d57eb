"""The offline half: losses and training jobs."""
