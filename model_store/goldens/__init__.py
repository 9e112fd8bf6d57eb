"""Golden sets: published scores of models, with their sources, for weights that are not here."""
