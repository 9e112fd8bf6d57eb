"""How many GPUs a load needs: arithmetic over a network's shape, before anything is bought."""
