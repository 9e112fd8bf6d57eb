"""Pairs of texts as a tokenizer joins them, for networks with a head of one score."""
