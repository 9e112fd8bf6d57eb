"""Real texts for the next gmr-tiny: a teacher's vectors, rows, its tokens' vectors, measures."""
