"""Training of the next gmr-tiny's vision tower to name pictures, and rows of pictures."""
