"""The errors of data and options that a command cannot use.

Does not depend on what the data is for. Invariant: the text of an error is one sentence for the
user of a command.
"""

from __future__ import annotations


class DataError(Exception):
    """Data that cannot be used; its text is one sentence, which begins with file and line where
    there are some."""


class WrongUsage(DataError):
    """Options of a command that do not fit together; its text is one sentence that names them."""
