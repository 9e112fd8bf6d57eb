"""Cascades: served models that score all documents cheaply, and the best of them again."""
