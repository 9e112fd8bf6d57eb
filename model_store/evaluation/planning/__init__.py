"""Plans of evaluations: the pairs, storage, time and cost of a benchmark, before it is run."""
