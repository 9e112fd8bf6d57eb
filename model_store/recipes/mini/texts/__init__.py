"""Real texts: a vocabulary, a teacher's vectors, rows, meanings of tokens, measures."""
