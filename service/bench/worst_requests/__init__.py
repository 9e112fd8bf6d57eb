"""The most expensive requests within the limits, and their cost to other callers."""
