"""First stages: the candidates of a dataset's queries, found by words, by vectors, or given."""
