"""The first minutes on a GPU: measurements in order, each a program of its own with a limit."""
