"""Every offline command of `gmr`."""
