"""The GPUs that a load needs: arithmetic over a network's sizes, before anything is bought."""
