"""Golden pairs are read back exactly as they were written; those that ship have their logits."""

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


def same_part(left: str | Pixels, right: str | Pixels) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return left is right or (isinstance(left, str) and left == right)
    return np.array_equal(left, right)


def same_side(left: Side, right: Side) -> bool:
    return len(left) == len(right) and all(map(same_part, left, right))


def assert_equal(read: list[GoldenPair], written: list[GoldenPair]) -> None:
    assert len(read) == len(written)
    for left, right in zip(read, written, strict=True):
        assert left.cell == right.cell
        assert left.instruction == right.instruction
        assert left.logit == right.logit
        assert same_side(left.query, right.query)
        assert same_side(left.document, right.document)


def parts_of(pairs: list[GoldenPair]) -> list[str | Pixels]:
    """Texts and images of both sides of all pairs."""
    parts: list[str | Pixels] = []
    for pair in pairs:
        parts += [*pair.query, *pair.document]
    return parts


@settings(max_examples=60, deadline=None)
@given(written=st.lists(pairs, max_size=4))
def test_pairs_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, written: list[GoldenPair]
) -> None:
    folder = tmp_path_factory.mktemp("golden")
    names = write_golden(folder, written)
    assert_equal(read_golden(folder), written)

    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == set(names)


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
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


class TestShipped:
    """The golden pairs of gmr-tiny."""

    def test_every_cell_has_two_pairs(self) -> None:
        assert sorted(pair.cell for pair in read_golden(TINY)) == sorted(CELLS * 2)

    def test_the_two_documents_of_a_cell_differ(self) -> None:
        golden = read_golden(TINY)
        for first, second in zip(golden[::2], golden[1::2], strict=True):
            assert first.cell == second.cell
            assert same_side(first.query, second.query)
            assert not same_side(first.document, second.document)

    def test_every_picture_has_a_size_that_the_model_reads(self) -> None:
        manifest = read_manifest(TINY)
        assert manifest

        bounds = manifest.pixels
        assert bounds

        images = [part for part in parts_of(read_golden(TINY)) if not isinstance(part, str)]
        assert images

        for image in images:
            height, width, channels = image.shape
            assert (height % CELL, width % CELL, channels) == (0, 0, 3)
            assert bounds.min_pixels <= height * width <= bounds.max_pixels

    def test_every_file_is_in_the_manifest(self) -> None:
        manifest = read_manifest(TINY)
        assert manifest

        files = {GOLDEN}
        for entry in json.loads((TINY / GOLDEN).read_text(encoding="utf-8")):
            for part in (*entry["query"], *entry["document"]):
                if "image" in part:
                    files.add(part["image"])
        assert files <= set(manifest.files)

    @pytest.mark.slow
    def test_a_plain_transformers_loop_gives_their_logits(self) -> None:
        reference = NaiveReranker(TINY)
        for pair in read_golden(TINY):
            query, document = with_images(pair.query), with_images(pair.document)
            logit = reference.logit(pair.instruction, query, document)
            assert math.isclose(logit, pair.logit, abs_tol=1e-4), pair.cell


def with_images(side: Side) -> list[str | Image.Image]:
    return [part if isinstance(part, str) else Image.fromarray(part) for part in side]
