"""The public HTTP side: validates and admits requests, caches scores, and calls workers."""
