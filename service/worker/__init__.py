"""The scoring side: one checkpoint, one engine, no users."""
