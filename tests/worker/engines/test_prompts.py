"""A call is rendered in pieces of bounded size, and the rule of cutting is a part of the model's
digest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model_store.checkpoint import resolve
from model_store.families.prompt import PairTooLong, Prompt
from service.wire import ScoreCall, WireItem, WorkerInfo
from service.worker.engines.prompts import CUT, PIECE_CHARACTERS, CallRenderer, describe, pieces
from tests.conftest import TINY

lengths = st.integers(0, 3) | st.integers(0, 2 * PIECE_CHARACTERS)
documents = st.lists(
    st.lists(lengths.map(lambda length: "x" * length) | st.integers(0, 3), max_size=3), max_size=60
)


@given(documents=documents)
def test_pieces_hold_every_document_once_and_are_bounded(documents: list[WireItem]) -> None:
    seen: list[int] = []
    for piece in pieces(documents):
        seen += piece
        texts: list[str] = []
        for index in piece:
            texts += [part for part in documents[index] if isinstance(part, str)]
        assert len(piece) == 1 or sum(map(len, texts)) <= PIECE_CHARACTERS

    assert seen == list(range(len(documents)))


def test_many_tiny_documents_are_more_than_one_piece() -> None:
    assert len(list(pieces([["a"]] * 10_000))) > 5


def test_a_call_rendered_in_pieces_is_the_call_rendered_at_once() -> None:
    checkpoint = resolve(str(TINY))
    given: list[WireItem] = [["word " * (300 * number)] for number in range(40)]
    call = ScoreCall("gmr-tiny", None, ["query " * 4_000], given, [], truncate=True)
    renderer = CallRenderer(checkpoint, call)
    found: list[Prompt | PairTooLong] = []
    for piece in pieces(given):
        found += renderer.prompts(given[piece.start : piece.stop])

    assert len(list(pieces(given))) > 10
    assert found == CallRenderer(checkpoint, call).prompts(given)


def test_another_rule_of_cutting_is_another_model() -> None:
    """Cached scores of texts that were cut by another rule are not used."""

    def described(**options: str) -> WorkerInfo:
        return describe(
            resolve(str(TINY)), parts=(), engine="torch", dtype="float32", device="cpu", **options
        )

    assert described() == described(cut=CUT)
    assert described(cut="another").digest != described().digest
