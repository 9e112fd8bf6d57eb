"""Translations between vendors' request shapes and the gateway's own, one pure module each."""
