"""Reports of runs: a table with intervals as Markdown, JSON and PNG, and the comparison of two."""
