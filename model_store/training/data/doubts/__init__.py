"""Doubts: what is questionable in training rows that can be read, by rule, sample and retriever."""
