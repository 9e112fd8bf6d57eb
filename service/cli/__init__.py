"""The `gmr` command: thin, and imports what a command needs when it runs."""
