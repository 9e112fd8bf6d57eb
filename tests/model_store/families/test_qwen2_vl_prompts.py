"""Prompts of jina-reranker-m0 and MonoQwen2-VL have their authors' ids, in every cell."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.checkpoint import Checkpoint, resolve
from tests.qwen2_vl import (
    SIDES,
    JinaAuthors,
    MonoAuthors,
    Side,
    picture,
    prompt_of,
    side,
    write_qwen2_vl,
)

Authors = JinaAuthors | MonoAuthors


@pytest.fixture(scope="module", params=["jina-reranker-m0", "MonoQwen2-VL-v0.1"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, Authors]:
    """A checkpoint, and its authors' code."""
    ranking = request.param == "jina-reranker-m0"
    folder = write_qwen2_vl(tmp_path_factory.mktemp("hub") / request.param, ranking=ranking)
    authors = JinaAuthors(folder) if ranking else MonoAuthors(folder)
    return resolve(str(folder)), authors


def expected_ids(authors: Authors, query: Side, document: Side) -> list[int]:
    ids: list[int] = authors.inputs(query, document)["input_ids"][0].tolist()
    return ids


@pytest.mark.parametrize("query", SIDES)
@pytest.mark.parametrize("document", SIDES)
def test_ids_are_those_of_the_authors_code(
    model: tuple[Checkpoint, Authors], query: str, document: str
) -> None:
    checkpoint, authors = model
    sides = side(query, 1), side(document, 2)
    prompt = prompt_of(checkpoint, *sides)
    assert list(prompt.ids) == expected_ids(authors, *sides)
    assert not prompt.truncated


# no line of text has a control token in it, and the halves are joined at any of these
ordinary = st.text("ab1 .,:*?\n\t\u4e2d\u00e9'", max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=ordinary, document=ordinary)
def test_texts_are_joined_as_the_authors_join_them(
    model: tuple[Checkpoint, Authors], query: str, document: str
) -> None:
    checkpoint, authors = model
    found = prompt_of(checkpoint, (query,), (document,))
    assert list(found.ids) == expected_ids(authors, (query,), (document,))


def test_the_image_comes_before_the_text_of_a_side(model: tuple[Checkpoint, Authors]) -> None:
    checkpoint, _ = model
    image = picture(1)
    assert prompt_of(checkpoint, ("q", image), ("a", image)) == prompt_of(
        checkpoint, (image, "q"), (image, "a")
    )


def test_a_text_is_never_a_control_token(model: tuple[Checkpoint, Authors]) -> None:
    checkpoint, _ = model
    controls = checkpoint.family.tokenizer.controls
    typed = " ".join(controls)
    plain = prompt_of(checkpoint, ("a",), ("a",)).ids
    found = prompt_of(checkpoint, (typed,), (typed,)).ids
    for token in controls.values():
        assert found.count(token) == plain.count(token)


def test_a_long_document_is_cut_and_all_after_it_stays(
    model: tuple[Checkpoint, Authors],
) -> None:
    checkpoint, _ = model
    family = checkpoint.open_family(max_tokens=100)
    (cut,) = family.render((), ("what is red?",), [("word " * 200,)])
    whole = prompt_of(checkpoint, ("what is red?",), ("word",))

    assert cut.truncated
    assert 90 < len(cut.ids) <= 100
    assert cut.suffix == whole.suffix
