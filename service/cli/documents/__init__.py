"""Documents and queries of the command line: texts, picture files, and rows."""
