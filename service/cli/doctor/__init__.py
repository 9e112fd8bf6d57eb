"""`gmr doctor`: checks of a running service, from outside, as any client makes them."""
