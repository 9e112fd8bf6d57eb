"""`gmr eval`: benchmarks scored by a service, into a run that can be interrupted."""
