"""Media: the only place that opens an image or fetches a URL."""
