"""vLLM's async engine in pooling mode, in the worker's own process."""
