"""Parsing: bodies and items read off the event loop, within bounds on memory and time."""
