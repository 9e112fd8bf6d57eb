"""`gmr bulk`: scores for a file of queries and candidates, in parts that can be interrupted."""
