"""The pages say what is so: each command, name, path and link in them is held to the code or to a
running service."""
