"""Clients of other vendors, as docs/clients.md shows them, rank with a running service; refusals
reach their users in words, and they retry as they were built to."""

from __future__ import annotations

from operator import attrgetter

import pytest

from tests.clients.conftest import Outcomes, applies
from tests.clients.page import BLOCKS, Block, rows
from tests.clients.targets import BUSY, FREE, LIMITED, Targets, statuses

pytestmark = pytest.mark.slow

RANKING = [1, 2, 0]
ROWS = rows()
WORDS = {
    "400": ("[1] needs a text or an image.", "cannot be read: send PNG, JPEG or WebP."),
    "401": ("This API key is not valid.", "This needs an API key"),
    "404": ("No such model is served here. You may use: gmr-tiny.",),
    "429": ("This API key has 1 requests in flight, which is its quota.",),
    "503": ("No worker is ready.",),
}
USED_UP = "This API key's quota of pairs is used up: more in "
OPAQUE = {
    "the status alone": (
        "400 Bad",
        "401 Un",
        "429 Too",
        "503 Service",
        "No locally hosted gmr-huge",
    ),
    "`AssertionError`": ("AssertionError",),
}
"""The words of clients that do not show messages, as the page's table describes them."""

RANKERS = [block for block in BLOCKS if "models." not in block.code]
WITH_KEYS = [block for block in RANKERS if block.sends_key]
REFUSALS = [(block, case) for block in RANKERS for case in WORDS if applies(block, case)]
EACH = pytest.mark.parametrize("block", RANKERS, ids=attrgetter("name"))
EACH_WITH_KEYS = pytest.mark.parametrize("block", WITH_KEYS, ids=attrgetter("name"))


def words_at(block: Block, case: str) -> tuple[str, ...]:
    """The words of which a client shows one, by its row of the table."""
    shown = ROWS[block.heading].shown
    if shown in OPAQUE:
        return OPAQUE[shown]
    _, _, own = shown.partition(f"at {case} ")
    return (own.strip('"'),) if own else WORDS[case]


def test_each_client_has_a_row_in_the_table() -> None:
    assert {block.heading for block in RANKERS} == set(ROWS)


@EACH
def test_a_client_ranks(block: Block, outcomes: Outcomes) -> None:
    outcome = outcomes[block.name, "served"]
    assert outcome.error is None
    assert outcome.printed == [RANKING]


@pytest.mark.parametrize(
    ("block", "case"), REFUSALS, ids=[f"{block.name}-{case}" for block, case in REFUSALS]
)
def test_a_refusal_reaches_the_user(block: Block, case: str, outcomes: Outcomes) -> None:
    outcome = outcomes[block.name, case]
    assert outcome.printed == []
    assert outcome.error is not None
    assert any(words in outcome.error for words in words_at(block, case)), outcome.error


def test_pictures_that_a_client_writes_as_text_are_refused(outcomes: Outcomes) -> None:
    outcome = outcomes["ai-sdk", "pictures as text"]
    assert outcome.printed == []
    assert outcome.error is not None
    assert "documents[0]" in outcome.error
    assert "image" in outcome.error


def test_models_are_listed_and_found(outcomes: Outcomes) -> None:
    outcome = outcomes["openai-models", "served"]
    assert (outcome.printed, outcome.error) == ([["gmr-tiny"], "gmr-tiny"], None)
    for case in ("401", "404", "503"):
        error = outcomes["openai-models", case].error
        assert error is not None
        assert any(words in error for words in WORDS[case]), error


@EACH_WITH_KEYS
def test_a_client_gives_up_after_so_many_requests(
    block: Block, outcomes: Outcomes, targets: Targets
) -> None:
    row = ROWS[block.heading]
    assert statuses(targets.answering, block.name, BUSY) == [429] * row.busy
    assert statuses(targets.empty, block.name, FREE) == [503] * row.empty


@EACH_WITH_KEYS
def test_a_client_that_retries_is_served_once_its_quota_has_room(
    block: Block, outcomes: Outcomes, targets: Targets
) -> None:
    row = ROWS[block.heading]
    outcome = outcomes[block.name, "twice"]
    answered = statuses(targets.answering, block.name, LIMITED)
    if row.waits:
        assert outcome.error is None
        assert outcome.printed == [RANKING, RANKING]
        assert answered == [200, 429, 200]
    else:
        assert outcome.error is not None
        assert any(words in outcome.error for words in OPAQUE.get(row.shown, (USED_UP,)))
        assert answered == [200] + [429] * row.busy
