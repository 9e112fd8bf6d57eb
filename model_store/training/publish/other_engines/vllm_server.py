"""Logits of golden pairs by vLLM's own server, started with the command of the model card.

Depends on vLLM's command line and its route `/score`, not on prompts: the server renders them by
the folder's chat template. Invariant: the process ends, and with it all processes that it started.
"""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from model_store.golden import GoldenPair, Side
from model_store.training.publish.other_engines.processes import end_of, started
from model_store.training.publish.pairs import PublishRefused, has_pictures_on_both_sides

_MODULE = "vllm.entrypoints.openai.api_server"
"""The module of `vllm serve`; the `vllm` command of the CPU build does not start."""
_START_SECONDS = 1800
_PAUSE_SECONDS = 0.5
_ANSWER_SECONDS = 600
_MAX_ANSWER_BYTES = 2**20


def served_logits(
    python: Path,
    folder: Path,
    command: Sequence[str],
    pairs: Sequence[GoldenPair],
    *,
    document_first: bool = False,
) -> tuple[list[float | None], str]:
    """The raw score of each pair, and the server's version.

    `command` begins with `vllm serve .` and is run in the folder, on a free port of loopback. Of a
    side with several parts vLLM puts images before texts. None for a pair with pictures on both
    sides where prompts begin with the document: the folder's template refuses it. Raises
    `PublishRefused` with the end of the server's log where it gives no scores.
    """
    port = _free_port()
    line = [str(python.absolute()), "-m", _MODULE, "--model", *command[2:]]
    line += ["--host", "127.0.0.1", "--port", str(port)]
    logits: list[float | None] = []
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with started(line, log, folder=folder, environment=_environment()) as process:
            try:
                _await_ready(process, port)
                for pair in pairs:
                    refused = document_first and has_pictures_on_both_sides(pair)
                    logits.append(None if refused else _logit(port, pair))
                version = str(_asked(port, "/version")["version"])
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                raise PublishRefused(
                    f"vLLM's server gave no logits ({type(error).__name__}). The end of its"
                    f" log:\n{end_of(log)}"
                ) from None
    return logits, version


def _environment() -> dict[str, str]:
    """Settings that vLLM's CPU build reads from the environment alone, unless they are there."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    wanted = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": cores}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait for the server; raises `OSError` where it ends or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(_PAUSE_SECONDS)
    raise OSError("not ready")


def _logit(port: int, pair: GoldenPair) -> float:
    body = {
        "queries": _content(pair.query),
        "documents": _content(pair.document),
        "instruction": pair.instruction,
        "use_activation": False,
    }
    return float(_asked(port, "/score", body)["data"][0]["score"])


def _asked(port: int, path: str, body: Any = None) -> Any:
    """The answer to a request; raises `OSError` or `ValueError`."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - loopback
        return json.loads(answer.read(_MAX_ANSWER_BYTES))


def _content(side: Side) -> Any:
    """A query or document in vLLM's form: a text, or content parts."""
    if len(side) == 1 and isinstance(side[0], str):
        return side[0]

    parts: list[dict[str, Any]] = []
    for part in side:
        if isinstance(part, str):
            parts.append({"type": "text", "text": part})
            continue
        file = io.BytesIO()
        Image.fromarray(part).save(file, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return {"content": parts}
