"""Publishing: a base and a LoRA adapter as a checked, described folder that is served."""
