"""Named pictures: small files, rows, held-out queries, and what they mean."""
