"""A checkpoint that is incomplete, invalid, or not what its manifest describes is never served;
the log has the reason in one line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

from model_store.manifest import MANIFEST, digest_files
from service.observability.logs import logger as service_log
from service.worker.app import create_worker
from service.worker.engines.loading import create_engine
from service.worker.settings import WorkerSettings
from tests.conftest import CALM, TINY, free_port
from tests.processes import Gmr, Process

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"
SECONDS = 120


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file; `change` edits in place, or returns the new content."""
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(value) or value), encoding="utf-8")


def sign(folder: Path) -> None:
    """Update the manifest to the files, as the publication of a bad checkpoint would."""
    names = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    ]
    digests = {name: digest.model_dump() for name, digest in digest_files(folder, names).items()}
    edit(folder / MANIFEST, lambda manifest: manifest.update(files=digests))


def flip_a_byte(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(5_000_000)
        byte = file.read(1)[0]
        file.seek(5_000_000)
        file.write(bytes([byte ^ 1]))


def cut_weights(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 5_000_000)


def cut_weights_signed(folder: Path) -> None:
    cut_weights(folder)
    sign(folder)


def without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def without_weights_signed(folder: Path) -> None:
    without_weights(folder)
    sign(folder)


def without_a_shard(folder: Path) -> None:
    without_weights(folder)
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    sign(folder)


def without_a_tensor(folder: Path) -> None:
    """Libraries fill such a gap with random numbers."""
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name in tensors if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file(
        {other: tensor for other, tensor in tensors.items() if other != name},
        folder / WEIGHTS,
        {"format": "pt"},
    )
    (folder / "golden.json").unlink()
    (folder / MANIFEST).unlink()


def noise_for_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"\xff" * 1_000)
    sign(folder)


def other_labels(folder: Path) -> None:
    """Another vocabulary, with yes and no exchanged."""

    def swap(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["yes"], vocabulary["no"] = vocabulary["no"], vocabulary["yes"]

    edit(folder / "tokenizer.json", swap)
    sign(folder)


def without_controls(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(added_tokens=[]))
    sign(folder)


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    sign(folder)


def golden_off(folder: Path) -> None:
    edit(folder / "golden.json", lambda pairs: pairs[-1].update(logit=pairs[-1]["logit"] + 0.01))
    sign(folder)


def golden_garbled(folder: Path) -> None:
    edit(folder / "golden.json", lambda pairs: pairs[-1].pop("query") and None)
    sign(folder)


def golden_of_nonsense(folder: Path) -> None:
    edit(folder / "golden.json", lambda pairs: [1, 2, 3])
    sign(folder)


def golden_without_picture(folder: Path) -> None:
    next((folder / "golden").iterdir()).unlink()
    sign(folder)


def half_a_manifest(folder: Path) -> None:
    os.truncate(folder / MANIFEST, 1_000)


def no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def a_later_manifest(folder: Path) -> None:
    edit(folder / MANIFEST, lambda manifest: manifest.update(schema_version=2))


def a_path_that_leads_out(folder: Path) -> None:
    edit(
        folder / MANIFEST,
        lambda manifest: manifest["files"].update(
            {"../../etc/passwd": {"sha256": "0" * 64, "bytes": 1}}
        ),
    )


def another_family(folder: Path) -> None:
    edit(folder / MANIFEST, lambda manifest: manifest.update(family="other"))


def garbled_config(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")
    sign(folder)


def another_shape(folder: Path) -> None:
    edit(folder / "config.json", double_the_width)
    sign(folder)


def double_the_width(config: dict[str, Any]) -> None:
    inner = config.get("text_config", config)
    inner["intermediate_size"] *= 2


class _Payload:
    """Code that runs when a pickle is loaded."""

    def __init__(self, sentinel: Path) -> None:
        self._sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._sentinel),)


def sentinel(folder: Path) -> Path:
    return folder.parent / "executed"


def a_pickle(folder: Path) -> None:
    without_weights(folder)
    for name in ("pytorch_model.bin", "model.pt", "model.bin"):
        (folder / name).write_bytes(pickle.dumps(_Payload(sentinel(folder))))
    sign(folder)


def a_pickle_without_manifest(folder: Path) -> None:
    a_pickle(folder)
    (folder / MANIFEST).unlink()
    (folder / "golden.json").unlink()


def a_pickle_named_safetensors(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps(_Payload(sentinel(folder))))
    sign(folder)


UNSOUND: dict[Callable[[Path], None], str] = {
    flip_a_byte: f"broken: {WEIGHTS} is not the file that was published (SHA-256 differs).",
    cut_weights: f"broken: {WEIGHTS} is not the file that was published (SHA-256 differs).",
    cut_weights_signed: "model.safetensors has 5000000 bytes where its header says",
    without_weights: f"broken: {WEIGHTS} is missing.",
    without_weights_signed: "there are no safetensors weights (model.safetensors, or ",
    without_a_shard: (
        "model-00001-of-00002.safetensors is missing, and model.safetensors.index.json names it"
    ),
    without_a_tensor: (
        "broken: the weights lack model.language_model.layers.1.mlp.up_proj.weight (1 missing in"
        " all)."
    ),
    noise_for_weights: "model.safetensors is no safetensors file, or is damaged.",
    other_labels: "true_token_id and false_token_id of 1_LogitScore/config.json are",
    without_controls: "the tokenizer has no control token",
    no_tokenizer: "tokenizer.json holds no readable tokenizer.",
    golden_off: "golden pair ",
    golden_garbled: "broken: golden.json or one of its pictures cannot be read.",
    golden_of_nonsense: "broken: golden.json or one of its pictures cannot be read.",
    golden_without_picture: "broken: golden.json or one of its pictures cannot be read.",
    half_a_manifest: f"broken/{MANIFEST} is not a valid manifest (1 errors).",
    no_manifest: f"it has golden.json but no {MANIFEST}, so it was not published to the end.",
    a_later_manifest: f"broken/{MANIFEST} is not a valid manifest (1 errors).",
    a_path_that_leads_out: f"broken/{MANIFEST} is not a valid manifest (1 errors).",
    another_family: "the model family 'other' is not known;",
    garbled_config: "config.json is not valid JSON in UTF-8.",
    another_shape: "has the shape [256, 512], and config.json asks for [256, 1024].",
    a_pickle: "there are no safetensors weights, and pickled ones (*.bin) are never opened.",
    a_pickle_without_manifest: (
        "there are no safetensors weights, and pickled ones (*.bin) are never opened."
    ),
    a_pickle_named_safetensors: "model.safetensors is no safetensors file, or is damaged.",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(TINY, tmp_path / "broken")


async def why_never_ready(caplog: pytest.LogCaptureFixture, model: str) -> str:
    """The line with which a worker gives up; it was never ready."""
    failed, ready = asyncio.Event(), asyncio.Event()
    settings = WorkerSettings(model=model, device="cpu", threads=1)
    app = create_worker(
        settings, create_engine(settings), on_ready=ready.set, on_failure=failed.set
    )
    with caplog.at_level(logging.INFO, logger=service_log.name):
        async with app.router.lifespan_context(app):
            await asyncio.wait_for(failed.wait(), SECONDS)
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://worker"
            ) as client:
                assert [
                    (await client.get(path)).status_code for path in ("/health/ready", "/info")
                ] == [503, 503]
    assert not ready.is_set()
    (record,) = [
        record
        for record in caplog.records
        if record.name == service_log.name and record.levelno > logging.INFO
    ]
    assert record.levelno == logging.ERROR
    assert record.exc_info is None
    assert "\n" not in record.getMessage()
    return record.getMessage()


@pytest.mark.parametrize("spoil", UNSOUND, ids=lambda spoil: spoil.__name__)
async def test_what_is_unsound_is_never_ready(
    caplog: pytest.LogCaptureFixture, folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder)
    assert UNSOUND[spoil] in await why_never_ready(caplog, str(folder))
    assert not sentinel(folder).exists()


async def test_a_name_that_means_nothing_is_never_ready(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    for model in ("no-such-model", str(tmp_path / "nowhere"), str(file)):
        caplog.clear()
        assert await why_never_ready(caplog, model)


def test_the_process_ends_with_a_code_and_one_line_of_error(tmp_path: Path, folder: Path) -> None:
    flip_a_byte(folder)
    with Gmr("worker", "--model", str(folder), log=tmp_path / "log", **CALM) as worker:
        assert worker.wait() == 1
        lines = [json.loads(line) for line in worker.said().splitlines()]
    assert [line["level"] for line in lines].count("error") == 1
    assert UNSOUND[flip_a_byte] in lines[-1]["message"]


LITTLE_MEMORY = """
import resource, sys
from service.cli.main import app
import service.worker.app, service.web.server, torch, transformers
from transformers import Qwen2_5_VLForConditionalGeneration
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + {room}, size + {room}))
app(["worker", "--model", {model!r}, "--port", "{port}"])
"""
"""A worker whose code is loaded, and which has only so much memory left for its model."""


def enlarge_the_vocabulary(folder: Path, rows: int) -> None:
    """Give the embeddings so many rows, in the configuration and in the weights, which become a
    hole of that size."""
    with (folder / WEIGHTS).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)

    end = 0
    for name, tensor in header.items():
        begin, old_end = tensor["data_offsets"]
        size = old_end - begin
        if name.endswith("embed_tokens.weight"):
            size = size // tensor["shape"][0] * rows
            tensor["shape"][0] = rows
        tensor["data_offsets"] = [end, end + size]
        end += size

    text = json.dumps(header).encode()
    with (folder / WEIGHTS).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    edit(
        folder / "config.json",
        lambda config: config.get("text_config", config).update(vocab_size=rows),
    )


def test_too_little_memory_ends_the_process(tmp_path: Path, folder: Path) -> None:
    """The weights are larger than what is left: a file with a hole in it, so that the disk does not
    need the room."""
    enlarge_the_vocabulary(folder, rows=3 * 2**29 // 512)
    (folder / MANIFEST).unlink()
    (folder / "golden.json").unlink()
    program = LITTLE_MEMORY.format(room=2**30, model=str(folder), port=free_port())
    with Process(
        [sys.executable, "-c", program], tmp_path / "log", CALM | {"MALLOC_ARENA_MAX": "1"}
    ) as worker:
        assert worker.wait() == 1, worker.said()
        lines = [json.loads(line) for line in worker.said().splitlines()]
    assert [line["level"] for line in lines].count("error") == 1
    assert lines[-1]["level"] == "error"
    assert "trace" not in lines[-1]


def test_code_beside_the_weights_is_never_run(tmp_path: Path, folder: Path) -> None:
    """`auto_map` names it, and nobody looks. The same worker has nowhere to write to, and is ready
    all the same."""
    code = f"import os\nos.mkdir({str(sentinel(folder))!r})\nclass Evil: pass\n"
    (folder / "evil.py").write_text(code, encoding="utf-8")
    names = dict.fromkeys(
        ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer"), "evil.Evil"
    )
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        edit(folder / name, lambda config: config.update(auto_map=names, trust_remote_code=True))
    sign(folder)
    nowhere = dict.fromkeys(
        ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR"), "/proc/1"
    )
    with Gmr("worker", "--model", str(folder), log=tmp_path / "log", **CALM, **nowhere) as worker:
        worker.await_ready()
    assert not sentinel(folder).exists()
