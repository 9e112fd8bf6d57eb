"""mteb's pairs become queries with their documents, and images are as they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset, Features, Image, Value
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pil
from torch.utils.data import DataLoader

from service.mteb.instructions import Override, instruct
from service.mteb.pairs import MAX_DOCUMENTS, Question, questions
from service.mteb.pictures import encoded
from tests.mteb.tasks import table


def no_instruction(row: object) -> tuple[None, str]:
    return None, "text"


def batches(rows: list[dict[str, Any]], size: int) -> Iterator[dict[str, list[Any]]]:
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield {name: [row[name] for row in part] for name in part[0]}


def asked(queries: Any, documents: Any) -> list[Question]:
    return list(questions(queries, documents, no_instruction))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=6), st.integers(1, 7))
def test_each_pair_is_in_one_question_in_its_order(
    runs: list[tuple[int, int]], batch_size: int
) -> None:
    names = [f"q{query}" for query, count in runs for _ in range(count)]
    queries = [{"id": name, "text": name} for name in names]
    documents = [{"id": f"d{number}", "text": "d"} for number in range(len(names))]
    found = asked(batches(queries, batch_size), batches(documents, batch_size))

    pairs = [
        (question.query.id, document.id) for question in found for document in question.documents
    ]
    assert pairs == [(name, f"d{number}") for number, name in enumerate(names)]
    assert [question.first for question in found] == [
        sum(len(each.documents) for each in found[:number]) for number in range(len(found))
    ]
    for before, after in pairwise(found):
        assert before.query.id != after.query.id


def test_a_question_is_bounded_and_the_next_one_continues_its_ranks() -> None:
    count = MAX_DOCUMENTS + 3
    queries = table([{"id": "q", "text": "q"}]).select([0] * count)
    documents = table([{"id": f"d{number}", "text": "d"} for number in range(count)])
    whole, rest = asked(DataLoader(queries), DataLoader(documents))
    assert (len(whole.documents), whole.rank) == (MAX_DOCUMENTS, 0)
    assert (len(rest.documents), rest.rank, rest.first) == (3, MAX_DOCUMENTS, MAX_DOCUMENTS)


def test_loaders_of_unequal_length_are_refused() -> None:
    two = table([{"id": "a", "text": "a"}, {"id": "b", "text": "b"}])
    with pytest.raises(ValueError, match="shorter"):
        asked(DataLoader(two), DataLoader(two.select([0])))


class TestPictures:
    @staticmethod
    def written(image: Pil.Image, kind: str) -> bytes:
        into = BytesIO()
        image.save(into, kind)
        return into.getvalue()

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_stored_bytes_are_kept(self, kind: str) -> None:
        stored = self.written(Pil.new("RGB", (8, 8), "red"), kind)
        rows = Dataset.from_list(
            [{"id": "d", "image": {"bytes": stored, "path": None}}],
            features=Features({"id": Value("string"), "image": Image()}),
        )
        (question,) = asked(DataLoader(table([{"id": "q", "text": "q"}])), DataLoader(rows))
        assert question.documents[0].image == stored

    def test_other_formats_become_png_with_the_same_pixels(self) -> None:
        red = Pil.new("RGB", (8, 8), "red")
        sent = encoded({"bytes": self.written(red, "BMP"), "path": None})
        assert sent
        shown = Pil.open(BytesIO(sent))
        assert (shown.format, shown.tobytes()) == ("PNG", red.tobytes())

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
    def test_a_decoded_image_keeps_its_colours(self, mode: str) -> None:
        image = Pil.new("RGB", (8, 8), (200, 30, 90)).convert(mode)
        sent = encoded(image)
        assert sent
        assert Pil.open(BytesIO(sent)).convert("RGB").tobytes() == image.convert("RGB").tobytes()

    def test_bytes_that_are_no_image_are_the_services_to_refuse(self) -> None:
        assert encoded({"bytes": b"no image", "path": None}) == b"no image"


class TestInstructions:
    @staticmethod
    def of(
        override: Override,
        row: dict[str, str],
        *,
        name: str = "Mine",
        prompt: object = None,
        takes_instruction: bool = True,
    ) -> tuple[str | None, str]:
        task = SimpleNamespace(name=name, prompt=prompt)
        return instruct(task, override, takes_instruction=takes_instruction)(row)

    def test_the_papers_stands_before_mtebs(self) -> None:
        found = self.of(None, {}, name="GLDv2I2TRetrieval", prompt="other")
        assert found == ("Retrieve the name of the landmark based on the given image.", "text")

    @pytest.mark.parametrize("prompt", ["Find it.", {"query": "Find it.", "document": "no"}])
    def test_another_task_has_mtebs(self, prompt: object) -> None:
        assert self.of(None, {}, prompt=prompt) == ("Find it.", "text")
        assert self.of(None, {}) == (None, "text")

    def test_the_callers_stands_before_all(self) -> None:
        row = {"text": "q i", "query": "q", "instruction": "i"}
        assert self.of("Mine.", row, prompt="no") == ("Mine.", "text")
        assert self.of({"Mine": "This."}, {}, prompt="no") == ("This.", "text")
        assert self.of({"Other": "This."}, {}, prompt="Find it.") == ("Find it.", "text")

    def test_a_rows_own_is_not_also_in_its_text(self) -> None:
        row = {"text": "q i", "query": "q", "instruction": "i"}
        assert self.of(None, row, prompt="no") == ("i", "query")

    def test_a_model_without_a_place_for_it_gets_none(self) -> None:
        row = {"text": "q i", "query": "q", "instruction": "i"}
        assert self.of(None, row, prompt="no", takes_instruction=False) == (None, "text")
