"""The fleet: the workers of this gateway, and the dispatch of calls to them."""
