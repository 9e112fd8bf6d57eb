"""The online half: gateway, worker, and what they share."""
