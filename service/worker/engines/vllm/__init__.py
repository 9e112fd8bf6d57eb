"""vLLM's async engine, in the worker's own process."""
