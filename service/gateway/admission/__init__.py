"""Admission: the callers that may enter, and the amount of work that is admitted at once."""
