"""A checkpoint of real size with random weights: made, published, loaded and served once."""
