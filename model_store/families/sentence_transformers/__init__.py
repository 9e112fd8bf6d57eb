"""A reranker as sentence-transformers saves it: modules, prompts, and a chat template."""
