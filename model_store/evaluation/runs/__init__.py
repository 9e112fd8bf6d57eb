"""Runs of an evaluation: queries that are scored once, and kept on disk."""
