"""The arguments of `gmr rerank`: a query, and documents.

Does not depend on HTTP. Invariant: the name of a file is never the query's text; where an
order of arguments could mean both, the command ends with a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_store.commands.console import misuse
from service.cli.documents.items import query_item
from service.cli.documents.sources import names_a_file

NO_QUERY = "There is no query: give its text first, or --query-image FILE."


def read_query(
    arguments: Sequence[str], query: str | None, picture: Path | None, *, only_texts: bool
) -> tuple[dict[str, str], Sequence[str]]:
    """The query as an item, and the arguments that are documents.

    The first argument is the query's text, unless `query` is given, or `picture` is and the
    argument names a file. Misuse ends the command. Raises `Unusable` for a picture that cannot be
    read.
    """
    if query is None and arguments:
        first = arguments[0]
        is_file = not only_texts and names_a_file(first)
        if is_file and picture is None:
            misuse(
                f"The query comes before the documents, and {first} is a file or folder: put the"
                " query's text first, or ask with a picture by --query-image."
            )
        if not is_file:
            query, arguments = first, arguments[1:]

    if query is not None and not is_unicode(query):
        misuse("The query is not UTF-8 text.")
    if query is not None and not query.strip() and picture is None:
        misuse("The query is empty.")
    if query is None and picture is None:
        misuse(NO_QUERY)
    return query_item(query, picture), arguments


def is_unicode(text: str) -> bool:
    """True if a text can be sent: an argument that is not UTF-8 cannot."""
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)
