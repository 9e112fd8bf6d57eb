"""The prompt equals the checkpoint's own template and processor, id by id, and no text changes its
structure."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pil
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from model_store.evaluation.naive import SYSTEM, NaiveReranker
from model_store.families.gmr import TEMPLATES, Gmr
from model_store.families.prompt import Image, Item, PairTooLong, Prompt
from model_store.families.readout import LabelPair
from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer, TokenizerMismatch
from tests.conftest import TINY
from tests.model_store.families.vocabularies import english, prose

INSTRUCTION, QUERY, DOCUMENT = range(3)
SPELLINGS: dict[str, list[str | int]] = {
    "code": ["<Instruct>: ", INSTRUCTION, "<Query>:", QUERY, "\n<Document>:", DOCUMENT],
    "spaced": ["<Instruct>: ", INSTRUCTION, "\n<Query>: ", QUERY, "\n<Document>: ", DOCUMENT],
    "document-first": ["<Document>:", DOCUMENT, "\n<Instruct>: ", INSTRUCTION, "<Query>:", QUERY],
}
"""The words of a template, and the sides between them."""


@pytest.fixture(scope="module")
def tokenizer() -> LiteralTokenizer:
    return LiteralTokenizer.load(TINY)


@pytest.fixture(scope="module")
def family(tokenizer: LiteralTokenizer) -> Gmr:
    return Gmr(tokenizer)


@pytest.fixture(scope="module")
def reference() -> NaiveReranker:
    return NaiveReranker(TINY)


@cache
def chat_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(TINY)


def reference_ids(
    reference: NaiveReranker, template: str, instruction: Item, query: Item, document: Item
) -> list[int]:
    """The ids of a triple by the checkpoint's chat template, tokenizer and image processor."""
    content: list[dict[str, str]] = []
    pictures = []
    for piece in SPELLINGS[template]:
        item: Item = (piece,) if isinstance(piece, str) else (instruction, query, document)[piece]
        for part in item:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
            else:
                content.append({"type": "image"})
                pictures.append(Pil.new("RGB", (part.width, part.height)))

    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
    text = chat_tokenizer().apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    return reference.ids(text, pictures)


ordinary = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(
    lambda text: "<|" not in text and "tool_call>" not in text
)
sizes = st.sampled_from([(112, 112), (224, 168), (140, 196)])
images = sizes.map(lambda size: Image(repr(size).encode(), *size))
items = st.lists(ordinary | images, min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize("template", list(TEMPLATES))
@settings(max_examples=150, deadline=None)
@given(instruction=items, query=items, documents=st.lists(items, min_size=1, max_size=3))
def test_ids_equal_the_checkpoints_own(
    reference: NaiveReranker,
    tokenizer: LiteralTokenizer,
    template: str,
    instruction: Item,
    query: Item,
    documents: list[Item],
) -> None:
    prompts = Gmr(tokenizer, template=template).render(instruction, query, documents)
    for prompt, document in zip(prompts, documents, strict=True):
        assert isinstance(prompt, Prompt)
        assert list(prompt.ids) == reference_ids(reference, template, instruction, query, document)


@pytest.mark.parametrize(
    "text", ["(x)", "\n\nx", " x", "'s", "?!", ":::", "̸", "é", "\r\n", "١٢", "\x00"]
)
def test_halves_join_where_the_tokenizer_would_split(
    reference: NaiveReranker, family: Gmr, text: str
) -> None:
    (prompt,) = family.render((text,), (text,), [(text,)])
    assert isinstance(prompt, Prompt)
    assert list(prompt.ids) == reference_ids(reference, "code", (text,), (text,), (text,))


@pytest.mark.parametrize("token", sorted(LiteralTokenizer.load(TINY).controls))
def test_a_typed_control_token_is_just_text(
    tokenizer: LiteralTokenizer, family: Gmr, token: str
) -> None:
    controls = set(tokenizer.controls.values())

    def structure(prompt: Prompt | PairTooLong) -> list[int]:
        assert isinstance(prompt, Prompt)
        return [token for token in prompt.ids if token in controls]

    picture = Image(b"", 112, 112)
    plain = family.render(("i",), ("q", picture), [("d",), (picture, "d")])
    texts = [token, f"a {token} b", token * 50, f"{token[:3]}", f"{token}\n{token}"]
    for text in texts:
        typed = family.render((text,), (text, picture), [(text,), (picture, text)])
        assert list(map(structure, typed)) == list(map(structure, plain))
    split = family.render((token[:2],), (token[2:], picture), [(token[:2],), (picture, token[2:])])

    assert list(map(structure, split)) == list(map(structure, plain))


def test_an_empty_side_renders_as_nothing(reference: NaiveReranker, family: Gmr) -> None:
    (prompt,) = family.render((), (), [()])
    assert isinstance(prompt, Prompt)
    assert list(prompt.ids) == reference_ids(reference, "code", (), (), ())


def test_documents_share_one_prefix(family: Gmr) -> None:
    prompts = family.render(("i",), ("q",), [("a",), ("b",), ("c " * 9000,)])
    assert len({id(prompt.prefix) for prompt in prompts if isinstance(prompt, Prompt)}) == 1


class TestTruncation:
    """Only text is cut, from its end: the document's, then the query's."""

    LONG = "every good boy does fine " * 2000

    def test_a_long_document_is_cut_to_the_limit(self, family: Gmr) -> None:
        (prompt,) = family.render(("i",), ("q",), [(self.LONG,)])
        assert isinstance(prompt, Prompt)
        assert prompt.truncated
        assert family.max_tokens - 5 <= len(prompt.ids) <= family.max_tokens

    def test_a_cut_document_is_its_own_beginning(self, family: Gmr) -> None:
        """The pair reads as if the user had sent the shortened text."""
        (cut,) = family.render(("i",), ("q",), [(self.LONG,)])
        assert isinstance(cut, Prompt)
        read = Tokenizer.from_file(str(TINY / TOKENIZER_FILE)).decode(
            cut.suffix.ids, skip_special_tokens=True
        )
        head = read.removeprefix("<Document>:").removesuffix("\nassistant\n")

        assert self.LONG.startswith(head)
        assert family.document((head,)) == cut.suffix

    def test_a_long_query_leaves_the_document_a_quarter(self, family: Gmr) -> None:
        short, long = family.render(("i",), (self.LONG,), [("a red circle",), (self.LONG,)])
        assert isinstance(short, Prompt)
        assert isinstance(long, Prompt)
        assert short.truncated
        assert short.suffix == family.document(("a red circle",))
        assert len(long.suffix.ids) >= family.max_tokens // 4 - 5
        assert max(len(short.ids), len(long.ids)) <= family.max_tokens

    def test_images_are_never_cut(self, family: Gmr) -> None:
        picture = Image(b"", 28 * 30, 28 * 30)
        (prompt,) = family.render(("i",), ("q",), [(self.LONG, picture, self.LONG, picture)])
        assert isinstance(prompt, Prompt)
        assert prompt.images == (picture, picture)
        assert prompt.ids.count(family.image_token_id) == 1800
        assert len(prompt.ids) <= family.max_tokens

    def test_a_query_pays_for_a_documents_images(self, family: Gmr) -> None:
        picture = Image(b"", 28 * 30, 28 * 30)
        (prompt,) = family.render(("i",), (self.LONG,), [(picture, picture, picture)])
        assert isinstance(prompt, Prompt)
        assert prompt.ids.count(family.image_token_id) == 2700

    def test_what_cannot_be_cut_is_refused(self, family: Gmr) -> None:
        picture = Image(b"", 28 * 36, 28 * 35)
        refused, scored = family.render(("i",), ("q",), [(picture,) * 4, ("d",)])
        assert isinstance(refused, PairTooLong)
        assert refused == PairTooLong(family.max_tokens, "pair")
        assert isinstance(scored, Prompt)

    def test_nothing_is_cut_when_asked_not_to(self, family: Gmr) -> None:
        refused, scored = family.render(("i",), ("q",), [(self.LONG,), ("d",)], truncate=False)
        assert isinstance(refused, PairTooLong)
        assert isinstance(scored, Prompt)
        assert not scored.truncated

    @settings(max_examples=60, deadline=None)
    @given(query=st.integers(0, 5000), document=st.integers(0, 5000), images=st.integers(0, 3))
    def test_whatever_the_lengths_a_prompt_fits(
        self, family: Gmr, query: int, document: int, images: int
    ) -> None:
        picture = Image(b"", 28 * 20, 28 * 20)
        (prompt,) = family.render(
            ("i",), ("é" * query,), [("word " * document, *[picture] * images)]
        )
        assert isinstance(prompt, Prompt)
        assert len(prompt.ids) <= family.max_tokens
        assert prompt.ids.count(family.image_token_id) == 400 * images

    @pytest.mark.parametrize(
        "script", ["Chinese", "Japanese", "Korean", "Thai", "Devanagari", "Russian"]
    )
    def test_a_text_of_any_script_fills_its_share(self, family: Gmr, script: str) -> None:
        """Once, texts whose characters are several tokens each were read as none."""
        text = prose(script, 6_000)
        document, query = family.render(("i",), ("q",), [(text,)]) + family.render(
            ("i",), (text,), [("d",)]
        )
        assert isinstance(document, Prompt)
        assert isinstance(query, Prompt)
        assert family.max_tokens - 12 < len(document.ids) <= family.max_tokens
        assert family.max_tokens * 3 // 4 - 12 < len(query.prefix.ids) <= family.max_tokens * 3 // 4

    @pytest.mark.parametrize(
        "document", [(english(40_000),), (english(20_000), Image(b"", 112, 112), english(9_000, 1))]
    )
    def test_an_english_document_keeps_the_first_ids_of_the_whole(
        self, family: Gmr, document: Item
    ) -> None:
        (prompt,) = family.render(("i",), ("q",), [document])
        assert isinstance(prompt, Prompt)
        kept = len(prompt.suffix.ids) - 30  # an image, the turn's end, and the answer's place

        assert len(prompt.ids) == family.max_tokens
        assert prompt.suffix.ids[:kept] == family.document((document[0],)).ids[:kept]

    def test_a_cut_query_and_a_cut_document_are_their_own_beginnings(self, family: Gmr) -> None:
        text = english(30_000)
        (prompt,) = family.render(("i",), (text,), [(text,)])
        assert isinstance(prompt, Prompt)

        uncut = family.question(("i",), (text,)).ids
        assert prompt.prefix.ids[:-1] == uncut[: len(prompt.prefix.ids) - 1]
        assert prompt.prefix.ids[-1] == uncut[-1]

    def test_a_long_instruction_leaves_the_document_what_is_left(self, family: Gmr) -> None:
        """More than the query's share of three quarters, and still there is room."""
        (prompt,) = family.render(("word " * 2_900,), (self.LONG,), [(self.LONG,)])
        assert isinstance(prompt, Prompt)
        assert prompt.truncated
        assert family.max_tokens - 5 <= len(prompt.ids) <= family.max_tokens


class TestBlame:
    """A part that is too long by itself is named, before any document is read."""

    PICTURE = Image(b"", 28 * 40, 28 * 40)

    @pytest.mark.parametrize("truncate", [True, False])
    @pytest.mark.parametrize(
        ("instruction", "query", "part"),
        [
            ("word " * 4_000, ("q",), "instruction"),
            ("然" * 100_000, ("q",), "instruction"),
            ("word " * 4_000, (PICTURE, PICTURE), "instruction"),
            ("i", (PICTURE, PICTURE), "query"),
            ("word " * 2_000, ("text", PICTURE), "query"),
        ],
    )
    def test_the_part_that_does_not_fit_alone(
        self, family: Gmr, instruction: str, query: Item, part: str, truncate: bool
    ) -> None:
        renderer = family.renderer((instruction,), query, truncate=truncate)
        assert (
            renderer.prompts([("d",), ("word " * 50_000,)])
            == [PairTooLong(family.max_tokens, part)] * 2
        )  # type: ignore[arg-type]

    def test_a_long_query_is_to_blame_only_where_it_is_not_cut(self, family: Gmr) -> None:
        query = ("word " * 4_000,)
        assert family.render(("i",), query, [("d",)], truncate=False) == [
            PairTooLong(family.max_tokens, "query")
        ]
        assert isinstance(family.render(("i",), query, [("d",)])[0], Prompt)

    def test_a_pair_is_to_blame_where_each_side_would_fit(self, family: Gmr) -> None:
        sides = ("word " * 1_700,), [("word " * 1_700,), ("d",)]
        refused, prompt = family.render(("i",), *sides, truncate=False)
        assert refused == PairTooLong(family.max_tokens, "pair")
        assert isinstance(prompt, Prompt)


def test_documents_rendered_a_few_at_a_time_are_those_rendered_at_once(family: Gmr) -> None:
    documents: list[Item] = [
        (english(size, size), Image(b"", 112, 112)) for size in (10, 9_000, 30_000, 500, 14_000)
    ]
    query = (english(12_000),)
    renderer = family.renderer(("i",), query)

    assert renderer.prompts(documents[:2]) + renderer.prompts(documents[2:]) == family.render(
        ("i",), query, documents
    )


def test_a_label_of_two_tokens_is_refused(tokenizer: LiteralTokenizer) -> None:
    with pytest.raises(TokenizerMismatch, match="not at all"):
        Gmr(tokenizer, readout=LabelPair("yes", "not at all"))


def test_label_ids_are_those_of_the_words(tokenizer: LiteralTokenizer, family: Gmr) -> None:
    assert [[label] for label in family.label_ids] == tokenizer.encode(["yes", "no"])
