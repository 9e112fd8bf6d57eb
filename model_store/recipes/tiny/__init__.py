"""Makes gmr-tiny, the checkpoint that ships, from nothing."""
