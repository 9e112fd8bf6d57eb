"""Network architectures that checkpoints have: tensors, configuration, positions, modules."""
