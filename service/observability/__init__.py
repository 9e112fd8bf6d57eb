"""Metrics, exposition, one log line a request, request context, traces."""
