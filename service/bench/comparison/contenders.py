"""Who is compared: how each is asked, and read. Each is programs of its own, and is talked to as by
any client.

Knows public APIs, nothing of how the service works inside. Invariant: what a contender does for a
request between `prepare` and `logits` is all that it needs to answer it, and it gets nothing that
others do not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from threading import Lock
from typing import Protocol

from model_store.checkpoint import Checkpoint
from service.bench import calls
from service.bench.comparison import vllm_server
from service.bench.programs import Program, ProgramFailed
from service.bench.workloads import Request

_SETTLE_SECONDS = 0.5
"""After a pause: what timed out meanwhile is noticed, and mended, before the clock runs."""
_SUB_CALL_DOCUMENTS = 25
_SUB_CALLS = 64


@dataclass(frozen=True, slots=True)
class Tokens:
    """Prompt tokens of what was answered so far, and those of them that went through the
    network."""

    prompt: float
    computed: float


class Contender(Protocol):
    """One side of the comparison."""

    name: str
    dtype: str
    concurrent: bool
    """Whether it can be asked by several callers at once."""
    programs: list[Program]

    def prepare(self, request: Request) -> list[bytes]:
        """A request as it will be sent: outside of the clock."""
        ...

    def ask(self, prepared: Sequence[bytes]) -> list[bytes]:
        """Send and wait: this is what the clock sees. May be called from several threads."""
        ...

    def logits(self, answers: Sequence[bytes]) -> list[float]:
        """One a document, in the request's order: outside of the clock."""
        ...

    def ready(self) -> bool: ...

    def tokens(self) -> Tokens | None:
        """None where it does not say."""
        ...


@dataclass
class Service:
    """A gateway at `url`, whatever is behind it: a worker at `worker_url`, where that is a process
    of its own."""

    name: str
    dtype: str
    programs: list[Program]
    url: str
    worker_url: str = ""
    tells_reuse: bool = True
    """Whether its engine says which tokens it had computed before; torch does not."""
    concurrent: bool = True

    def prepare(self, request: Request) -> list[bytes]:
        return [json.dumps(request.body()).encode()]

    def ask(self, prepared: Sequence[bytes]) -> list[bytes]:
        return [calls.post(self.url, "/rerank", body) for body in prepared]

    def logits(self, answers: Sequence[bytes]) -> list[float]:
        results = chain.from_iterable(json.loads(answer)["results"] for answer in answers)
        return [
            result["logit"] for result in sorted(results, key=lambda result: int(result["index"]))
        ]

    def ready(self) -> bool:
        return calls.answers(self.url, "/health/ready")

    def tokens(self) -> Tokens | None:
        if not self.tells_reuse:
            return None
        counted = calls.numbers(self.url)
        of = {
            source: counted.get(f'rerank_prompt_tokens_total{{source="{source}"}}', 0.0)
            for source in _SOURCES
        }
        return Tokens(sum(of.values()), of["computed"])


_SOURCES = ("computed", "prefix", "cached")


@dataclass
class VllmServer:
    """vLLM's own server at `url`. `tuned` clients resize pictures themselves and send a request as
    several calls at once."""

    name: str
    dtype: str
    programs: list[Program]
    url: str
    checkpoint: Checkpoint
    tuned: bool
    concurrent: bool = True
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_SUB_CALLS))

    def prepare(self, request: Request) -> list[bytes]:
        if not self.tuned:
            return [vllm_server.rerank_body(request)]
        return vllm_server.score_bodies(request, self.checkpoint.family.images, _SUB_CALL_DOCUMENTS)

    def ask(self, prepared: Sequence[bytes]) -> list[bytes]:
        path = "/score" if self.tuned else "/rerank"
        if len(prepared) == 1:
            return [calls.post(self.url, path, prepared[0])]
        return list(self._pool.map(lambda body: calls.post(self.url, path, body), prepared))

    def logits(self, answers: Sequence[bytes]) -> list[float]:
        return vllm_server.read_logits(answers)

    def ready(self) -> bool:
        return calls.answers(self.url, "/health")

    def tokens(self) -> Tokens | None:
        counted = calls.numbers(self.url)
        prompt, cached = (
            _total(counted, f"vllm:{name}_total")
            for name in ("prompt_tokens", "prompt_tokens_cached")
        )
        return Tokens(prompt, prompt - cached)


@dataclass
class Loop:
    """The naive loop, which answers one request after the other through a pipe."""

    name: str
    programs: list[Program]
    dtype: str = "float32"
    concurrent: bool = False
    _turn: Lock = field(default_factory=Lock)

    def prepare(self, request: Request) -> list[bytes]:
        return [json.dumps(request.body()).encode() + b"\n"]

    def ask(self, prepared: Sequence[bytes]) -> list[bytes]:
        with self._turn:
            return [self._line(body) for body in prepared]

    def logits(self, answers: Sequence[bytes]) -> list[float]:
        return [float(logit) for answer in answers for logit in json.loads(answer)["logits"]]

    def ready(self) -> bool:
        return True

    def tokens(self) -> Tokens | None:
        return None

    def _line(self, body: bytes) -> bytes:
        process = self.programs[0].process
        assert process.stdin
        assert process.stdout
        process.stdin.write(body)
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise ProgramFailed(f"The naive loop has ended.\n{self.programs[0].tail()}")
        return line


def pause(contender: Contender) -> None:
    """Stop it where it stands, from the outside in, so that no program waits for one that cannot
    answer."""
    for program in contender.programs:
        program.pause()


def resume(contender: Contender) -> None:
    """Wake it, and wait until it answers as before."""
    for program in reversed(contender.programs):
        program.resume()
    time.sleep(_SETTLE_SECONDS)
    contender.programs[0].await_ready(contender.ready)


def _total(counted: dict[str, float], name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(value for key, value in counted.items() if key.partition("{")[0] == name)
