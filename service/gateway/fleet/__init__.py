"""The fleet: the workers of this gateway, and how calls are sent to them."""
