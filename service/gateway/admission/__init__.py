"""Admission: which callers may enter, and how much work at once."""
