"""The speed and memory of a training step, with pairs as rows and behind a shared prefix."""
