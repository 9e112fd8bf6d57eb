"""Logits of golden pairs by other programs: vLLM's engine and server, and sentence-transformers."""
