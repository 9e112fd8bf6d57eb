"""Real texts and pictures, from packages of public registries."""
