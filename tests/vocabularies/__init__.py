"""Whole vocabularies of published models, which `make tools` installs from npm's registry."""
