"""The score cache: scores that are known already, in memory and in Redis."""
