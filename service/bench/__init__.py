"""`gmr bench`: measurements of the online half from outside, as any client makes them."""
