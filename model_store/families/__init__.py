"""Model families: how a pair becomes token ids."""
