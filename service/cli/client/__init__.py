"""The client of a running service, for the commands that rank: calls, documents, and tables."""
