"""Readers of the layouts that datasets come in: BEIR's folders, TREC's files, and mteb's tasks."""
