"""Qwen3-Reranker is trained, published and served: a family of text alone, on another network."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from model_store.checkpoint import Checkpoint, resolve
from model_store.commands import publish as publish_command
from model_store.errors import DataError
from model_store.golden import read_golden
from model_store.training.batches import Batcher
from model_store.training.config import TrainConfig
from model_store.training.journal import read_metrics
from model_store.training.not_finite import NotFinite
from model_store.training.publish.parity import TOLERANCE
from model_store.training.sources import open_sources
from model_store.training.train import train
from service.worker.engines.torch.engine import TorchEngine
from service.worker.golden_check import check_golden
from tests.model_store.training.rows import draw, write_rows
from tests.qwen3 import AuthorsCode, write_qwen3

pytestmark = pytest.mark.slow
COLOURS = ("red", "blue", "green", "yellow", "black", "white")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("bases") / "qwen3"
    return resolve(str(write_qwen3(folder, seed=3, num_hidden_layers=2)))


def row(number: int) -> dict[str, object]:
    colour = COLOURS[number]
    others = [COLOURS[(number + step) % len(COLOURS)] for step in (1, 2, 3)]
    return {
        "id": f"q{number}",
        "query": f"which one is {colour}?",
        "positives": [f"This one is {colour}."],
        "negatives": [
            {"text": f"This one is {other}.", "kind": "random" if at else "hard"}
            for at, other in enumerate(others)
        ],
    }


def config(base: Checkpoint, folder: Path, **loss: str) -> TrainConfig:
    path = folder / "train.jsonl"
    if not path.exists():
        write_rows(path, [row(number) for number in range(len(COLOURS))])
    return TrainConfig.model_validate(
        {
            "model": str(base.folder),
            "output": folder / "run",
            "data": {"train": path, "negatives": 3, "random_share": 0.67, "max_tokens": 256},
            "lora": {"rank": 4, "alpha": 8},
            "loss": loss,
            "optimizer": {"learning_rate": 5e-3, "warmup": 0.0},
            "batch": {"examples": 3, "tokens": 512, "checkpointing": False},
            "steps": 6,
            "precision": "fp32",
            "device": "cpu",
        }
    )


@pytest.fixture(scope="module")
def run(base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(base, tmp_path_factory.mktemp("rows")), stream=StringIO())


@pytest.fixture(scope="module")
def published(base: Checkpoint, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, by `gmr publish`."""
    app = typer.Typer()
    publish_command.register(app)
    app.command("other")(lambda: None)  # a single command would be the program itself
    output = tmp_path_factory.mktemp("published") / "mine"
    done = CliRunner().invoke(app, ["publish", str(base.folder), str(run), str(output)])
    assert done.exit_code == 0, done.output
    return output


def test_it_learns_on_every_map_of_its_layers(run: Path) -> None:
    losses = [step["sft"] for step in read_metrics(run)]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    weights = load_file(run / "adapter" / "adapter_model.safetensors")
    assert len(weights) == 2 * 2 * 7
    assert all(name.startswith("base_model.model.model.layers.") for name in weights)


def test_every_way_of_scoring_agrees(published: Path) -> None:
    record = json.loads((published / "parity.json").read_text(encoding="utf-8"))
    ways = {"base", "adapter", "merged", "rounded", "reloaded", "sentence-transformers"}
    assert set(record["ways"]) == ways
    assert {pair["cell"] for pair in record["pairs"]} == {"T-T"}
    assert not (published / "preprocessor_config.json").exists()
    assert record["deviations"]["sentence-transformers"]["largest"] < 1e-4
    card = (published / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "a document, both texts, and answers yes or no" in card
    assert "Images:" not in card


def test_its_golden_pairs_are_those_of_the_authors_code(published: Path) -> None:
    loop = AuthorsCode(published)
    for pair in read_golden(published):
        yes, no = loop.logits(pair.instruction, text(pair.query), text(pair.document))
        assert pair.logit == pytest.approx(yes - no, abs=TOLERANCE)


async def test_the_torch_engine_has_the_parity_files_logits(published: Path) -> None:
    record = json.loads((published / "parity.json").read_text(encoding="utf-8"))
    golden = read_golden(published)
    assert [pair.logit for pair in golden] == [
        pair["logits"]["reloaded"] for pair in record["pairs"]
    ]
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(published)))
    assert await check_golden(engine, info, golden, None) < TOLERANCE
    await engine.close()


def test_a_row_with_an_image_is_refused_by_its_line(base: Checkpoint, tmp_path: Path) -> None:
    rows = [row(number) for number in range(4)]
    draw(tmp_path / "red.png", "red")
    rows[2] |= {"positives": [{"image": "red.png"}]}
    write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError) as caught:
        train(config(base, tmp_path), stream=StringIO())
    assert str(caught.value) == (
        f"{tmp_path / 'train.jsonl'}:3: the row has an image, and the model family qwen3-reranker"
        " reads text only."
    )
    assert not (tmp_path / "run").exists()


def test_positions_are_those_of_text(base: Checkpoint, tmp_path: Path) -> None:
    sources = open_sources(config(base, tmp_path), 1)
    group = sources.grouper.group(sources.examples[0], 0)
    batcher = Batcher(budget=4096, family=base.family, architecture=base.decoder)
    (unit,) = batcher.units([group])
    (batch,) = unit.batches
    assert batch.positions.shape == (1, *batch.ids.shape)
    length = int(batch.last[0]) + 1
    assert batch.positions[0, 0, :length].tolist() == list(range(length))
    assert (batch.pixels, batch.grids, batch.image_rows) == (None, None, None)


def text(side: tuple[object, ...]) -> str:
    (part,) = side
    assert isinstance(part, str)
    return part


def test_held_out_scores_that_are_no_numbers_end_the_run_by_name(tmp_path: Path) -> None:
    folder = write_qwen3(tmp_path / "qwen3", num_hidden_layers=1)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    settings = config(resolve(str(folder)), tmp_path).model_dump()
    settings["data"]["dev"] = write_rows(
        tmp_path / "dev.jsonl", [row(1) | {"id": "held-out", "query": "Which is blue, please?"}]
    )
    settings["early_stop"] = {"patience": 1}
    with pytest.raises(
        NotFinite,
        match=r"^Held-out logits are not finite; the examples are held-out \(.*dev.jsonl:1",
    ):
        train(TrainConfig.model_validate(settings), stream=StringIO())
    assert read_metrics(tmp_path / "run") == []
