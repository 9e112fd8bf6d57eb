"""Training of the next gmr-tiny's middle layers on signs of the generated cells."""
