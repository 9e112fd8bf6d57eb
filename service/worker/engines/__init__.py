"""Engines that run the network: one contract and its implementations."""
