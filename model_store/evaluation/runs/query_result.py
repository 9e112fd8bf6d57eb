"""The scores of one query's candidates, with all that a metric needs.

Does not depend on a task's data: a report is made of such results alone.
"""

from __future__ import annotations

import msgspec


class QueryResult(msgspec.Struct, frozen=True):
    """A query that has been scored, or that failed for good.

    Lists have an entry a candidate, in the order of the first stage. `scores` are raw scores (the
    logits of an answer), None where the document was refused.
    """

    dataset: str
    query: str
    candidates: list[str]
    scores: list[float | None]
    grades: list[int]
    """Grades of the candidates, 0 where a document was not judged."""
    ideal: list[int]
    """All grades above 0 of the query's judged documents, candidates or not, the largest first."""
    error: str = ""
    """The reason why the query failed; all scores are None then."""
    prompt_tokens: int = 0
    cached_pairs: int = 0
    refusal: str = ""
    """The reason of the first document that was refused; "" where none was."""
    instruction: str | msgspec.UnsetType | None = msgspec.UNSET
    """The instruction that the query was scored with; None: the model's own. Unset in results of
    versions that did not keep it."""
