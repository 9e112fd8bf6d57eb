"""Metrics, exposition, request context, one log line per request, traces."""
