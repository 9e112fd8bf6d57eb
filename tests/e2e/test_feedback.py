"""From clicks to a promoted checkpoint: a service is asked for made-up words, its answers get
feedback, and the checkpoint that is trained on it is better on queries that it has not seen."""

from __future__ import annotations

import base64
import io
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from model_store.evaluation.results import read_results
from model_store.manifest import manifest_digest
from model_store.registry.storage import open_storage
from model_store.registry.versions import upload
from service.cli.main import app
from tests.conftest import CALM, TINY, free_port, started
from tests.model_store.training.colours import SIDE, WORDS
from tests.processes import eventually

pytestmark = pytest.mark.slow

ASKED = (
    *("which is", "show me", "find the", "where is the", "one that is", "give me a"),
    *("any", "my", "look for", "is there a", "the only", "bring me"),
)
QUERIES = len(ASKED) * len(WORDS)
COLOURS = list(WORDS.values())
TRAINING = """
model: gmr-tiny
output: run
data: {train: train.jsonl, dev: dev.jsonl, negatives: 3, random_share: 0.0, max_tokens: 512}
lora: {rank: 16, alpha: 32}
optimizer: {learning_rate: 1.0e-3, warmup: 0.1}
batch: {examples: 4, tokens: 4096, checkpointing: false}
steps: 60
precision: auto
device: cpu
save_every: 60
"""


def gmr(*words: str, **environment: str) -> str:
    """The output of a command, which must succeed."""
    done = CliRunner().invoke(app, words, env=environment)
    assert done.exit_code == 0, (words, done.output[-2000:], done.exception)
    return done.stdout


def document(colour: str, number: int, *, picture: bool) -> dict[str, Any]:
    """A document of a colour, different for each number."""
    if not picture:
        return {"text": f"Number {number} is {colour}."}
    image = Image.new("RGB", (SIDE, SIDE), "white")
    corner = 8 + number % 24
    ImageDraw.Draw(image).rectangle((corner, corner, corner + 60, corner + 60), fill=colour)
    image.putpixel((0, 0), (number % 256, number // 256, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"image": base64.b64encode(buffer.getvalue()).decode()}


def ask(client: httpx.Client, number: int) -> tuple[str, list[int], Sequence[str]]:
    """Ask for a made-up word among documents of all colours; returns the id of the answer, the
    indices of its results, and the colours of the documents."""
    word = list(WORDS)[number % len(WORDS)]
    colours = random.Random(number).sample(COLOURS, len(COLOURS))
    documents = [
        document(colour, 10 * number + at, picture=number % 8 == 7)
        for at, colour in enumerate(colours)
    ]
    body = {
        "query": f"{ASKED[number // len(WORDS)]} {word}?",
        "documents": documents,
        "instruction": "Find what has this colour.",
    }
    answer = client.post("/rerank", json=body)
    assert answer.status_code == 200, answer.text
    indices = [result["index"] for result in answer.json()["results"]]
    return answer.headers["x-request-id"], indices, colours


def respond(client: httpx.Client, number: int) -> None:
    """Ask, and give feedback: one user clicks on the colour that was meant, after a look at what is
    above it; another grades all results."""
    request_id, indices, colours = ask(client, number)
    wanted = colours.index(WORDS[list(WORDS)[number % len(WORDS)]])
    events: list[dict[str, Any]] = [{"index": wanted, "clicked": True}]
    if number % 2 or indices[0] == wanted:
        events = [{"index": index, "grade": 2 * (index == wanted)} for index in indices]
    body = {"request_id": request_id, "shown": len(indices), "events": events}
    taken = client.post("/v1/feedback", json=body)
    assert taken.status_code == 202, taken.text
    assert taken.json()["accepted"] == len(events)


def asked_and_answered(folder: Path) -> None:
    """A service that answers queries, takes feedback on them, and is killed."""
    kept = {"RERANK_FEEDBACK_FOLDER": str(folder), "RERANK_FEEDBACK_CONTENT": "true"}
    log = folder.with_name("log")
    with (
        started("serve", port=free_port(), log=log, python=sys.executable, **CALM, **kept) as (
            url,
            process,
        ),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for number in range(QUERIES):
            respond(client, number)
        metrics = client.get("/metrics").text
        assert f'rerank_feedback_answers_total{{outcome="recorded"}} {QUERIES}.0' in metrics
        written = f'lines_total{{kind="events",outcome="written"}} {QUERIES}.0'
        eventually(lambda: written in client.get("/metrics").text)
        process.kill()
        process.wait()


def test_feedback_becomes_a_better_checkpoint_that_passes_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked_and_answered(tmp_path / "feedback")
    (file,) = (tmp_path / "feedback" / "events").iterdir()
    assert file.suffix == ".open"  # nothing has closed it
    with file.open("ab") as torn:
        torn.write(b'{"v":1,"kind":"events","ans')

    printed = gmr("data", "feedback", "feedback", "rows.jsonl")
    assert f"{QUERIES} rows with {QUERIES} positives" in printed
    gmr("data", "split", "rows.jsonl", "train.jsonl", "dev.jsonl", "--share", "0.5")
    gmr("data", "check", "train.jsonl", "--held-out", "dev.jsonl")

    Path("training.yaml").write_text(TRAINING, encoding="utf-8")
    gmr("train", "training.yaml")
    registry = {"RERANK_REGISTRY": str(tmp_path / "registry")}
    gmr("publish", "gmr-tiny", "run", "build/gmr-tiny", **registry)
    upload(open_storage(registry["RERANK_REGISTRY"]), TINY)  # a version that is in use

    means: dict[str, float] = {}
    for folder in (TINY, Path("build/gmr-tiny")):
        results = f"{len(means)}.json"
        gmr("eval", "checkpoint", str(folder), results, "--rows", "dev.jsonl")
        means[results] = read_results(Path(results)).score
        version = manifest_digest(folder)
        gmr("models", "promote", "gmr-tiny", version, "--evaluation", results, **registry)
    assert means["1.json"] > means["0.json"] + 0.1
