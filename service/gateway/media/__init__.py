"""Media: the only package of the gateway that opens an image or fetches a URL."""
