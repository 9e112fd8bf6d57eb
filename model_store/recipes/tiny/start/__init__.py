"""The next gmr-tiny before its training: vocabulary, meanings of tokens, and initial weights."""
