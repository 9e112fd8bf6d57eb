"""Splitting and affinity over two workers."""
