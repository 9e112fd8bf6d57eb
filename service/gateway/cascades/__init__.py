"""Cascades: models of this gateway whose stages are models of its workers, and the guard of their
quality."""
