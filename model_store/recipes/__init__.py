"""Jobs built of the training parts: the checkpoint that ships, and the ablations."""
