"""LoRA adapters: the contents of their folders, and the fit to a base."""
