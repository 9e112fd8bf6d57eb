"""Pictures of packages have names; the next gmr-tiny's vision tower learns them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

from model_store.checkpoint import resolve
from model_store.evaluation.tasks.readers.folder import FolderSource
from model_store.families.tokens import TOKENIZER_FILE
from model_store.recipes.tiny.naming.drawings import SIDE, drawn, shown
from model_store.recipes.tiny.naming.groups import (
    CANDIDATES,
    DOCUMENTS,
    picture_rows,
    write_picture_task,
)
from model_store.recipes.tiny.naming.stage import Naming, learn_names
from model_store.recipes.tiny.network import configure
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.sources.pictures.clip_art import read_clip_art
from model_store.recipes.tiny.sources.pictures.emoji import read_emoji
from model_store.recipes.tiny.sources.pictures.named import NamedPicture
from model_store.recipes.tiny.sources.pictures.stamps import read_stamps
from model_store.recipes.tiny.start.pooling import ONE, SPELLING, WEIGHT
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
def test_naming_goes_on_where_it_stopped_and_holds_the_dimensions_that_are_no_meaning(
    pictures: list[NamedPicture], tmp_path: Path
) -> None:
    tokenizer = Tokenizer.from_file(str(TINY / TOKENIZER_FILE))
    batcher = PackedBatcher(resolve(str(TINY)).family, tokenizer, signs=False)
    torch.manual_seed(0)
    network = Qwen2_5_VLForConditionalGeneration(configure(tokenizer))
    begun = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    lines: list[str] = []

    def run(folder: str, stop: int = 0) -> dict[str, torch.Tensor]:
        network.load_state_dict(begun)
        settings = Naming(steps=2, seed=1, pictures=3, scenes=1, pages=1, save_every=1)

        def report(line: str) -> None:
            lines.append(line.split(":", maxsplit=1)[0])
            if stop and line.startswith(f"naming {stop}/"):
                raise KeyboardInterrupt

        where = tmp_path / folder
        learn_names(network, batcher, pictures, settings=settings, folder=where, report=report)
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", stop=1)
    parts = run("parts")
    assert lines == ["naming 1/2", "naming 2/2", "naming 1/2", "naming", "naming 2/2"]
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    changed = [name for name in whole if not torch.equal(whole[name], begun[name])]
    assert changed
    assert all("visual" in name for name in changed)
    bias = network.model.visual.merger.mlp[-1].bias.detach()
    assert bias[ONE] == 1
    assert bias[WEIGHT:SPELLING].count_nonzero() == 1
