"""Pictures with their names, from packages of public registries."""
