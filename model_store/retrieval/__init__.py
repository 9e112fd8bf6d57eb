"""Retrieval: documents of a corpus for a query, by words and by vectors."""
