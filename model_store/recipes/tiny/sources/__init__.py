"""Real texts and pictures for gmr-tiny, from packages of public registries."""
