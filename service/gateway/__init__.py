"""The public HTTP side: validates, admits, caches, and asks workers."""
