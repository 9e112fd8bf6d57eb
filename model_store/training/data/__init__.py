"""Training rows: their files, identity, checks, splits and mixtures."""
