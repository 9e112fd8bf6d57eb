"""transformers on a CPU or one GPU: the embedded default and the parity oracle."""
