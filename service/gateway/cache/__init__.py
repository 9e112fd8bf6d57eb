"""The score cache: scores of earlier requests, in memory and in Redis."""
