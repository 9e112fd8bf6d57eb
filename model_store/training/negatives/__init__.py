"""Mining: irrelevant documents for training, hard ones from a retriever and random ones."""
