"""Descriptions of a model before it is served, and golden pairs for a model that has none."""
