"""The effect of a failed part on callers, and the growth of memory over many requests."""
