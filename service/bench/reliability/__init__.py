"""Faults and memory: what callers notice when a part fails, and whether memory grows."""
