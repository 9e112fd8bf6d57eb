"""Parsing: request bodies and items read in threads, within bounds on memory and time."""
