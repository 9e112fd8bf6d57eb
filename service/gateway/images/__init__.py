"""Stored images: put once, kept for a while, and referred to by their digests."""
