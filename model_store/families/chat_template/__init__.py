"""A chat template that comes with a model, and the form of prompts that it gives."""
