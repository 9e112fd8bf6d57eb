"""The rehearsal of a real size: its checkpoint, the parts of a start, and one small run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from model_store.checkpoint import SHIPPED, resolve
from model_store.families.tokens import TokenizerMismatch
from service.bench.programs import started
from service.bench.rehearsal.checkpoint import weight_bytes, write_folder, write_weights
from service.bench.rehearsal.memory import sampled
from service.bench.rehearsal.start import parts
from service.cli.main import app
from tests.layouts import Layout, put, stated, write_layout

SHARD = 20_000_000


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sized") / "gmr-generated"
    write_folder(SHIPPED / "gmr-tiny", folder, "generated")
    write_weights(folder, advance=lambda written: None, shard=SHARD)
    return folder


def test_a_sized_checkpoint_is_one_that_a_hub_could_have(generated: Path) -> None:
    checkpoint = resolve(str(generated))
    assert checkpoint.manifest.family == "gmr"
    shards = sorted(generated.glob("*.safetensors"))
    assert len(shards) > 3
    assert all(shard.stat().st_size < SHARD + 100_000 for shard in shards)
    assert sum(shard.stat().st_size for shard in shards) == pytest.approx(
        weight_bytes(generated), rel=0.01
    )


def test_its_weights_are_random_bf16_numbers_and_its_norms_ones(generated: Path) -> None:
    tensors = {}
    for shard in generated.glob("*.safetensors"):
        tensors |= load_file(shard)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    embeddings = tensors["model.embed_tokens.weight"].float()
    assert float(embeddings.std()) == pytest.approx(0.02, rel=0.01)
    assert len(torch.unique(embeddings[:200], dim=0)) == 200
    assert torch.equal(tensors["model.norm.weight"].float(), torch.ones(512))


def test_a_tokenizer_of_ones_own_names_the_control_tokens_of_the_network(tmp_path: Path) -> None:
    tokenizer = stated("tokenizer.json")
    for number, token in enumerate(tokenizer["added_tokens"]):
        token["id"] += 10 + number
    put(tmp_path, "own.json", tokenizer)
    write_folder(SHIPPED / "gmr-tiny", tmp_path / "made", "generated", tmp_path / "own.json")
    config = json.loads((tmp_path / "made/config.json").read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert config["image_token_id"] == ids["<|image_pad|>"]
    assert config["vision_start_token_id"] == ids["<|vision_start|>"]

    tokenizer["added_tokens"] = []
    put(tmp_path, "bare.json", tokenizer)
    with pytest.raises(TokenizerMismatch):
        write_folder(SHIPPED / "gmr-tiny", tmp_path / "other", "generated", tmp_path / "bare.json")


LOG = """\
{"time":"2026-01-01T00:00:02.000Z","level":"info","message":"starting"}
a line of a library
{"time":"2026-01-01T00:00:05.500Z","message":"reading and checking the model's files"}
{"time":"2026-01-01T00:00:06.000Z","level":"info","message":"loading the model"}
{"time":"2026-01-01T00:00:16.000Z","level":"info","message":"scoring golden pairs"}
{"time":"2026-01-01T00:00:20.000Z","level":"info","message":"ready"}
{"time":"2026-01-01T00:01:20.000Z","level":"info","message":"ready"}
"""
BEGIN = 1_767_225_600.0


def test_the_parts_of_a_start_are_those_between_lines_of_the_log() -> None:
    assert parts(LOG, BEGIN) == {
        "interpreter and settings": 2.0,
        "libraries": 3.5,
        "hashing and checks": 0.5,
        "weights": 10.0,
        "golden pairs": 4.0,
    }
    without = "\n".join(line for line in LOG.splitlines() if "golden" not in line)
    assert parts(without, BEGIN)["weights"] == 14.0
    assert "golden pairs" not in parts(without, BEGIN)


def test_the_peak_of_a_programs_memory_is_seen(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; held = bytearray(200_000_000); time.sleep(60)"]
    with started("program", command, {}, tmp_path / "log") as program, sampled(program) as peak:
        deadline = time.monotonic() + 60
        while peak.own < 200_000_000 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert 200_000_000 <= peak.own < 400_000_000
    assert peak.together >= peak.own


@pytest.mark.slow
def test_a_rehearsal_publishes_starts_and_asks(tmp_path: Path) -> None:
    """The checkpoint is there already, and small."""
    write_layout(tmp_path / "made/gmr-generated", Layout(sharded=True))
    output = tmp_path / "report.json"
    command = [sys.executable, "-m", "service.cli", "bench", "--rehearsal", "--model", "generated"]
    command += ["--engine", "torch", "--folder", str(tmp_path / "made"), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr

    report = json.loads(output.read_text(encoding="utf-8"))
    assert report["weight_bytes"] == sum(
        shard.stat().st_size for shard in (tmp_path / "made/gmr-generated").glob("*.safetensors")
    ) - sum(headers(tmp_path / "made/gmr-generated"))
    assert report["publishing"]["pairs"] == 9
    assert list(report["start_seconds"]) == [
        "interpreter and settings",
        "libraries",
        "hashing and checks",
        "weights",
        "golden pairs",
    ]
    assert report["start_peak"]["own"] > report["weight_bytes"]
    assert report["request"]["documents"] == 4
    assert "start: golden pairs" in done.stdout
    assert resolve(str(tmp_path / "made/gmr-generated-published")).manifest.lineage["golden"]


def headers(folder: Path) -> list[int]:
    """Bytes of each shard that are not its tensors."""
    shards = [shard.read_bytes() for shard in folder.glob("*.safetensors")]
    return [8 + int.from_bytes(shard[:8], "little") for shard in shards]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "gmr-tiny"), "--rehearsal has the sizes generated, 3b, 7b."),
        (("--model", "generated", "--engine", "jax"), "There is no engine 'jax'"),
    ],
)
def test_what_cannot_be_rehearsed_is_wrong_usage(arguments: tuple[str, ...], sentence: str) -> None:
    done = CliRunner().invoke(app, ["bench", "--rehearsal", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(sentence)


def test_a_tokenizer_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    put(tmp_path, "bare.json", stated("tokenizer.json") | {"added_tokens": []})
    folder = tmp_path / "made"
    done = CliRunner().invoke(
        app,
        [
            *("bench", "--rehearsal", "--model", "generated", "--engine", "torch"),
            *("--folder", str(folder), "--tokenizer", str(tmp_path / "bare.json")),
        ],
    )
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].endswith(
        "the tokenizer has no control token <|image_pad|>."
    )
