"""Translations between vendors' request shapes and ours: one pure module each."""
