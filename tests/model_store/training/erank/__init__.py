"""ERank's training."""
