"""Golden pairs come back exactly as they were written, and the shipped ones have the logits they
claim."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from model_store.evaluation.naive import NaiveReranker
from model_store.golden import GOLDEN, GoldenPair, Pixels, Side, read_golden, write_golden
from model_store.manifest import read_manifest
from model_store.networks.qwen2_5_vl_images import CELL
from model_store.synthetic.cells import CELLS
from tests.conftest import TINY

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
sizes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.just(3))
pictures = arrays.arrays(np.uint8, sizes, elements=st.integers(0, 255) | st.just(7))
sides = st.lists(texts | pictures, min_size=1, max_size=3).map(tuple)
logits = st.floats(allow_nan=False, allow_infinity=False)
pairs = st.builds(GoldenPair, texts, texts, sides, sides, logits)


def same(one: Side, other: Side) -> bool:
    return len(one) == len(other) and all(
        left == right
        if isinstance(left, str) or isinstance(right, str)
        else np.array_equal(left, right)
        for left, right in zip(one, other, strict=True)
    )


def assert_equal(found: list[GoldenPair], written: list[GoldenPair]) -> None:
    assert len(found) == len(written)
    for one, other in zip(found, written, strict=True):
        assert (one.cell, one.instruction, one.logit) == (
            other.cell,
            other.instruction,
            other.logit,
        )
        assert same(one.query, other.query)
        assert same(one.document, other.document)


@settings(max_examples=60, deadline=None)
@given(written=st.lists(pairs, max_size=4))
def test_pairs_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, written: list[GoldenPair]
) -> None:
    folder = tmp_path_factory.mktemp("golden")
    names = write_golden(folder, written)
    assert_equal(read_golden(folder), written)
    assert {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    } == set(names)


def test_pictures_of_equal_bytes_and_other_shape_stay_apart(tmp_path: Path) -> None:
    wide, high = np.zeros((28, 56, 3), np.uint8), np.zeros((56, 28, 3), np.uint8)
    written = [GoldenPair("I-I", "", (wide,), (high,), 0.5)]
    write_golden(tmp_path, written)
    assert_equal(read_golden(tmp_path), written)


def test_a_picture_that_occurs_twice_is_kept_once(tmp_path: Path) -> None:
    picture = np.full((28, 28, 3), 9, np.uint8)
    names = write_golden(tmp_path, [GoldenPair("I-I", "", (picture,), (picture.copy(), "x"), 1.0)])
    assert len(names) == 2


def test_a_folder_without_golden_pairs_has_none(tmp_path: Path) -> None:
    assert read_golden(tmp_path) == []


def test_the_same_pairs_are_the_same_bytes(tmp_path: Path) -> None:
    golden = read_golden(TINY)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    names = write_golden(tmp_path / "a", golden)
    assert names == write_golden(tmp_path / "b", golden)
    assert all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in names
    )


class TestShipped:
    """What gmr-tiny brings along."""

    def test_every_cell_has_two_pairs(self) -> None:
        assert sorted(pair.cell for pair in read_golden(TINY)) == sorted(CELLS * 2)

    def test_the_two_documents_of_a_cell_differ(self) -> None:
        golden = read_golden(TINY)
        for first, second in zip(golden[::2], golden[1::2], strict=True):
            assert first.cell == second.cell
            assert same(first.query, second.query)
            assert not same(first.document, second.document)

    def test_every_picture_is_as_the_model_sees_it(self) -> None:
        manifest = read_manifest(TINY)
        assert manifest
        seen = [
            part
            for pair in read_golden(TINY)
            for part in (*pair.query, *pair.document)
            if not isinstance(part, str)
        ]
        assert seen
        for picture in seen:
            height, width, channels = picture.shape
            assert (height % CELL, width % CELL, channels) == (0, 0, 3)
            assert manifest.pixels.min_pixels <= height * width <= manifest.pixels.max_pixels

    def test_every_file_is_in_the_manifest(self) -> None:
        manifest = read_manifest(TINY)
        assert manifest
        entries = json.loads((TINY / GOLDEN).read_text(encoding="utf-8"))
        named = {
            part["image"]
            for entry in entries
            for part in (*entry["query"], *entry["document"])
            if "image" in part
        }
        assert {GOLDEN, *named} <= set(manifest.files)

    @pytest.mark.slow
    def test_a_plain_transformers_loop_gives_their_logits(self) -> None:
        reference = NaiveReranker(TINY)
        for pair in read_golden(TINY):
            query, document = (
                [as_part(part) for part in side] for side in (pair.query, pair.document)
            )
            found = reference.logit(pair.instruction, query, document)
            assert math.isclose(found, pair.logit, abs_tol=1e-4), pair.cell


def as_part(part: str | Pixels) -> str | Image.Image:
    return part if isinstance(part, str) else Image.fromarray(part)
