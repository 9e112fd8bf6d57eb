"""The training job: losses, batches, gradients, saved states."""
