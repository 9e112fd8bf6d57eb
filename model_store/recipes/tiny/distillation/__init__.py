"""Training of the next gmr-tiny towards a teacher: its vectors, groups, the stage, measures."""
