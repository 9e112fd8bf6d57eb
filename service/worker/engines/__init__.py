"""What runs the network: one engine contract and its implementations."""
