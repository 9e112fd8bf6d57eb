"""`gmr bench`: ways of serving one checkpoint, compared in one run; what the gateway adds; whether
memory grows."""
