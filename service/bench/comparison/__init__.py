"""Ways of serving one checkpoint, compared in one run."""
