"""Makes a small ERank from nothing: a base, its data, and both stages of its training."""
