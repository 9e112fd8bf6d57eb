"""The pages are correct: each command, name, path and link in them is checked against the code
or a running service."""
