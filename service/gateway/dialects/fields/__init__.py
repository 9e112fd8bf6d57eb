"""Fields of requests as every dialect reads them: names, checks, and messages about them."""
