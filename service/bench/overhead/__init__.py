"""The cost of the gateway, and that of its metrics, logs and traces."""
