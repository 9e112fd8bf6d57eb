"""The registry of published checkpoints, in a folder or a bucket."""
