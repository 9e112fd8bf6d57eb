"""A checkpoint's folder as hubs have it: which files count, and whether they fit together."""
