"""The `gmr` command: thin; a command imports what it needs when it runs."""
