"""Converters of public data sets, in their own layouts, to training rows and a corpus."""
