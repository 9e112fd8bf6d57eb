"""Published checkpoints in one place: a folder, or a bucket behind a URL."""
