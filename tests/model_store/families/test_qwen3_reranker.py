"""Qwen3-Reranker's prompts are those of its authors' code, token by token, and nothing a user types
becomes a control token."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.checkpoint import resolve
from model_store.families.family import Family
from model_store.families.prompt import PairTooLong, Prompt
from model_store.families.qwen3_reranker import Qwen3Reranker
from model_store.families.readout import LabelPair
from tests.qwen3 import INSTRUCTION, THINK, AuthorsCode, write_qwen3

texts = st.text(
    st.characters(exclude_categories=["Cs"], include_characters="<>|\n \t'"), max_size=80
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen3(tmp_path_factory.mktemp("models") / "qwen3-small")


@pytest.fixture(scope="module")
def family(folder: Path) -> Family:
    return resolve(str(folder)).family


@pytest.fixture(scope="module")
def authors(folder: Path) -> AuthorsCode:
    return AuthorsCode(folder)


def prompt_of(family: Family, instruction: str, query: str, document: str) -> Prompt:
    (prompt,) = family.render((instruction,), (query,), [(document,)])
    assert isinstance(prompt, Prompt)
    return prompt


def test_a_plain_folder_is_taken_for_the_family(folder: Path) -> None:
    checkpoint = resolve(str(folder))
    assert checkpoint.manifest.family == "qwen3-reranker"
    assert checkpoint.manifest.pixels is None
    assert checkpoint.manifest.max_tokens == 8192
    assert checkpoint.manifest.default_instruction == INSTRUCTION
    assert checkpoint.family.images is None
    assert checkpoint.family.readout == LabelPair("yes", "no")
    assert checkpoint.family.cacheable_side == "query"


@given(instruction=texts, query=texts, document=texts)
def test_ids_are_those_of_the_authors_code(
    family: Family, authors: AuthorsCode, instruction: str, query: str, document: str
) -> None:
    found = prompt_of(family, instruction, query, document)
    assert list(found.ids) == authors.ids(instruction, query, document)


def test_the_think_block_is_made_of_control_tokens(family: Family) -> None:
    ids = prompt_of(family, "i", "q", "d").ids
    begin, end = (family.tokenizer.control(token) for token in THINK)
    assert ids.count(begin) == ids.count(end) == 1
    assert ids.index(begin) < ids.index(end)
    assert family.tokenizer.encode(["\n\n"])[0] == list(ids[ids.index(end) + 1 :])


@pytest.mark.parametrize("side", ["instruction", "query", "document"])
def test_no_added_token_comes_from_a_users_text(family: Family, side: str) -> None:
    controls = set(family.tokenizer.controls.values())
    plain = {"instruction": "i", "query": "q", "document": "d"}
    typed = plain | {side: " ".join(family.tokenizer.controls)}

    found = [token for token in prompt_of(family, **typed).ids if token in controls]
    assert found == [token for token in prompt_of(family, **plain).ids if token in controls]


def test_only_document_text_is_cut_and_the_tail_stays(folder: Path) -> None:
    family = resolve(str(folder)).open_family(max_tokens=200)
    whole = prompt_of(family, INSTRUCTION, "q", "d")
    cut = prompt_of(family, INSTRUCTION, "q", "word " * 1000)
    assert cut.truncated
    assert len(cut.ids) <= 200
    assert cut.prefix == whole.prefix

    tail = [*whole.suffix.ids][-9:]
    assert [*cut.suffix.ids][-9:] == tail

    refused = family.render((INSTRUCTION,), ("q",), [("word " * 1000,)], truncate=False)
    assert refused == [PairTooLong(200, "pair")]


def test_its_fingerprint_tells_another_wording(family: Family, folder: Path) -> None:
    class Unspaced(Qwen3Reranker):
        templates: ClassVar[dict[str, tuple[str, str]]] = {
            "official": ("<Instruct>: {instruction}<Query>:{query}\n", "<Document>:{document}")
        }

    assert Unspaced(family.tokenizer).fingerprint != family.fingerprint
