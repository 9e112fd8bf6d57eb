"""Pictures of packages have names, and with them meanings."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize

from model_store.evaluation.tasks.readers.folder import FolderSource
from model_store.families.tokens import TOKENIZER_FILE
from model_store.recipes.mini.dimensions import NOTHING, OWN, WIDTH
from model_store.recipes.mini.lengths import measure_lengths
from model_store.recipes.mini.network import widen
from model_store.recipes.mini.pictures.drawings import SIDE, drawn, shown
from model_store.recipes.mini.pictures.groups import (
    CANDIDATES,
    DOCUMENTS,
    picture_rows,
    write_picture_task,
)
from model_store.recipes.mini.pictures.meanings import fit, learn_picture_meanings
from model_store.recipes.mini.sources.pictures.clip_art import read_clip_art
from model_store.recipes.mini.sources.pictures.emoji import read_emoji
from model_store.recipes.mini.sources.pictures.named import NamedPicture
from model_store.recipes.mini.sources.pictures.stamps import read_stamps
from model_store.recipes.mini.texts.meanings import Meanings
from model_store.recipes.tiny.packed_batches import pixel_values
from model_store.synthetic.pictures import fitted
from model_store.training.data.row_files import write_examples
from model_store.training.data.rows import read_examples
from tests.conftest import TINY

SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="urn:dc" xmlns:rdf="urn:rdf"
width="40pt" height="20pt"><metadata>
<dc:title>{title}</dc:title><rdf:Bag><rdf:li>music</rdf:li></rdf:Bag></metadata>
<circle cx="20" cy="10" r="{radius}" fill="red"/></svg>"""


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def save(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", (64, 48), colour).save(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[NamedPicture]:
    """Of many things, drawn."""
    folder = tmp_path_factory.mktemp("made")
    made: list[NamedPicture] = []
    for number in range(120):
        letters = "".join("abcdefghij"[int(digit)] for digit in f"{number:03d}")
        path = folder / f"{number}.png"
        save(path, f"#{number:02x}40{255 - number:02x}")
        made.append(NamedPicture("made", path, f"The {letters}", (f"{letters[::-1]}o",)))
    return drawn(made, folder / "drawn")


def test_emoji_have_keywords(tmp_path: Path) -> None:
    package = tmp_path / "pictures" / "package"
    listed = [
        {"unified": "1F512", "image": "1f512.png"},
        {"unified": "1F3FB", "image": "1f3fb.png"},
    ]
    write(package / "emoji.json", json.dumps(listed))
    words = {"\U0001f512": ["locked", "security", "pad_lock", ":x"]}
    write(tmp_path / "words/package/dist/emoji-en-US.json", json.dumps(words))
    for emoji in listed:
        save(package / "img/google/64" / emoji["image"], "red")
    (lock,) = read_emoji(tmp_path / "pictures", tmp_path / "words")
    assert (lock.title, lock.keywords) == ("locked", ("security", "pad lock"))
    assert lock.words == ("locked", "security", "pad", "lock")


def test_stamps_have_a_sentence_and_letters_are_left_out(tmp_path: Path) -> None:
    stamps = tmp_path / "usr/share/tuxpaint/stamps"
    save(stamps / "food/fruit/apple.png", "red")
    write(stamps / "food/fruit/apple.txt", "A red apple.\nfr.utf8=Une pomme.\n")
    save(stamps / "symbols/alphabets/a.png", "red")
    write(stamps / "symbols/alphabets/a.txt", "A.\n")
    (apple,) = read_stamps(tmp_path)
    assert (apple.title, apple.keywords) == ("A red apple", ("food", "fruit"))


def test_drawings_have_titles_and_are_drawn_once(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/openclipart/svg"
    write(folder / "guitar_01.svg", SVG.format(title="Acoustic guitar 01", radius=8))
    write(folder / "nothing.svg", SVG.format(title="Nothing at all", radius=0))
    write(folder / "broken.svg", "<svg><dc:title>Broken</dc:title>")
    write(folder / "untitled.svg", SVG.format(title="", radius=8))
    found = list(read_clip_art(tmp_path))
    assert [picture.title for picture in found] == ["Broken", "Acoustic guitar", "Nothing at all"]
    assert found[1].keywords == ("music",)

    for number in range(12):
        name = ("red-lion", "4_tiger")[number % 2]
        write(
            folder / f"zoo/{name}{number:02d}.svg", SVG.format(title="Our zoo", radius=number + 1)
        )
    zoo = [picture.title for picture in read_clip_art(tmp_path)][3:]
    assert sorted(zoo) == ["red lion"] * 6 + ["tiger"] * 6

    lines: list[str] = []
    (guitar,) = drawn(found, tmp_path / "drawn", lines.append)
    assert lines == ["1 pictures, and 2 that cannot be drawn"]
    with Image.open(guitar.path) as image:
        assert image.width == SIDE
    square = shown(guitar.path, Random(1))
    assert square.width == square.height
    assert square.width % 28 == 0
    guitar.path.write_bytes(b"kept")
    assert drawn([found[1]], tmp_path / "drawn") == [guitar]
    assert guitar.path.read_bytes() == b"kept"


def test_variants_of_a_picture_are_on_one_side() -> None:
    sides = {
        title: NamedPicture("s", Path("x.png"), title).held_out
        for title in ("Man running", "Woman running 2", "running")
    }
    assert len(set(sides.values())) == 1
    titles = [f"{a}{b}{c}" for a in "abcdef" for b in "abcdef" for c in "abcdef"]
    held = [NamedPicture("s", Path("x.png"), title).held_out for title in titles]
    assert 10 < sum(held) < 50


def test_rows_and_the_benchmark_share_no_picture(
    pictures: list[NamedPicture], tmp_path: Path
) -> None:
    held = {picture.path.read_bytes() for picture in pictures if picture.held_out}
    assert held
    write_examples(tmp_path / "rows.jsonl", picture_rows(pictures, 40, seed=2), "copy")
    asked: set[str] = set()
    for row in read_examples(tmp_path / "rows.jsonl"):
        sides = [row.query, *row.positives, *(negative.side for negative in row.negatives)]
        assert len(sides) == DOCUMENTS + 1
        seen = {side.image.read_bytes() for side in sides if side.image}
        assert not held & seen
        asked.add("text" if row.query.image is None else "image")
    assert asked == {"text", "image"}

    write_picture_task(tmp_path / "task", pictures, queries=5, seed=2)
    folder = tmp_path / "task"
    task = FolderSource("pictures", folder, folder / "qrels" / "test.tsv").load()
    assert len(task.documents) == len(held)
    assert 0 < len(task.queries) <= 5
    assert min(CANDIDATES, len(held)) > 5


@pytest.mark.slow
def test_pictures_get_the_meanings_of_their_names(
    pictures: list[NamedPicture], tmp_path: Path
) -> None:
    """Red and blue pictures, whose names say so."""
    tokenizer = Tokenizer.from_file(str(TINY / TOKENIZER_FILE))
    size = tokenizer.get_vocab_size()
    vectors = np.random.default_rng(0).normal(size=(size, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    meanings = Meanings(vectors, np.full(size, -1, np.float32))

    words = ("ocean", "river", "fire", "rose", "sky", "night", "paper", "garden")
    learnt = [word for word in words if not NamedPicture("s", tmp_path, word).held_out]
    of_red, of_blue = learnt[:2]
    made: list[NamedPicture] = []
    for number in range(60):
        colour, name = ("red", of_red) if number % 2 else ("blue", of_blue)
        save(tmp_path / f"{number}.png", colour)
        made.append(NamedPicture("s", tmp_path / f"{number}.png", f"{name} {number}"))
    found = learn_picture_meanings(
        TINY, tokenizer, meanings, made, seed=1, report=lambda line: None
    )
    assert found.weight.shape == (WIDTH, 512)
    again = learn_picture_meanings(
        TINY, tokenizer, meanings, made, seed=1, report=lambda line: None
    )
    assert torch.equal(found.weight, again.weight)

    lengths = measure_lengths(TINY, tokenizer, [("a red thing", "The ocean is blue.")])
    network = widen(TINY, tokenizer, meanings, lengths=lengths, pictures=found)

    def meaning(colour: str) -> Tensor:
        pixels, grids = pixel_values([fitted(Image.new("RGB", (112, 112), colour))])
        with torch.inference_mode():
            tokens = network.model.visual(pixels, grid_thw=grids).pooler_output
        return normalize(tokens[:, OWN:NOTHING].mean(0), dim=0)

    def word(text: str) -> Tensor:
        (token,) = tokenizer.encode(f" {text}", add_special_tokens=False).ids[:1]
        return torch.from_numpy(vectors[token])

    red, blue = meaning("red"), meaning("blue")
    assert red @ word(of_red) > blue @ word(of_red) + 0.1
    assert blue @ word(of_blue) > red @ word(of_blue) + 0.1


def test_a_ridge_regression_finds_a_linear_map() -> None:
    torch.manual_seed(0)
    features, weight, bias = torch.randn(400, 8), torch.randn(5, 8), torch.randn(5)
    found = fit(features, features @ weight.T + bias)
    assert torch.allclose(found.weight, weight, atol=0.02)
    assert torch.allclose(found.bias, bias, atol=0.02)
