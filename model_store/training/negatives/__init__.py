"""Irrelevant documents for training: some that a retriever takes for relevant, and some at
random."""
