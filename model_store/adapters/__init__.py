"""LoRA adapters: what is in their folders, and whether they fit a base."""
