"""The paper's comparisons of losses, run on a small base and the generated nine cells: `gmr
ablate`."""
