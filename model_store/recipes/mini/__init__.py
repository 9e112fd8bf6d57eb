"""Makes gmr-mini, the checkpoint that `make serve` starts, from gmr-tiny and real texts."""
