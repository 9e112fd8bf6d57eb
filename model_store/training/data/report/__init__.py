"""Reports on training rows: one HTML page or one Markdown file, which need nothing beside them."""
