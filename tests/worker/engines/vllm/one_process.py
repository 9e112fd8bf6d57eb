"""Workers with vLLM's engine in one process, which is started once for all modules of tests."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from service.wire import ScoreCall, ScoreReply, WorkerInfo
from tests.worker.engines.vllm.engine_worker import Pair, environment, python

PROGRAM = "tests.worker.engines.vllm.one_process_program"
Answer = Callable[..., dict[str, Any]]
"""The program's answer to a question, whose fields are the arguments."""


@contextmanager
def one_process(folder: Path) -> Iterator[Answer]:
    """The running program; its log is a file in `folder`."""
    log = folder / "log"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [python(), "-m", PROGRAM],
            env=environment(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="WARNING"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        asked, answered = process.stdin, process.stdout
        assert asked
        assert answered

        def answer(**question: object) -> dict[str, Any]:
            asked.write(json.dumps(question) + "\n")
            asked.flush()
            for line in answered:
                if line.startswith("{"):
                    found: dict[str, Any] = json.loads(line)
                    assert "failed" not in found, f"{found['failed']}\n{end_of(log)}"
                    return found
            raise AssertionError(end_of(log))

        yield answer
        process.terminate()


def end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8")[-4000:]


@dataclass(frozen=True)
class WorkerInProcess:
    """A worker of one checkpoint, which is ready."""

    info: WorkerInfo
    asked: dict[str, Any]
    answer: Answer

    def ask(self, call: ScoreCall) -> list[Pair]:
        """The verdict on each document."""
        (pairs,) = self.ask_all([call])
        return pairs

    def ask_all(self, calls: Sequence[ScoreCall]) -> list[list[Pair]]:
        encoded = [base64.b64encode(msgspec.msgpack.encode(call)).decode() for call in calls]
        found = self.answer(worker=self.asked, calls=encoded)
        replies = [base64.b64decode(reply) for reply in found["replies"]]
        return [msgspec.msgpack.decode(reply, type=ScoreReply).pairs for reply in replies]


def worker_of(answer: Answer, model: Path, **arguments: str) -> WorkerInProcess:
    """The worker of a folder, with engine arguments beside those of every test."""
    chosen = {"enforce_eager": "true", "kv_cache_memory_bytes": str(2**28)}
    asked = {"model": str(model), "arguments": chosen | arguments}
    info = answer(worker=asked, calls=[])["info"]
    return WorkerInProcess(msgspec.convert(info, WorkerInfo), asked, answer)
