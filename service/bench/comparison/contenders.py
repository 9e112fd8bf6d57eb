"""The contenders of a comparison: the requests that each is sent, and the logits in its answers.

Depends on public APIs, on nothing inside a contender; each is a set of programs and is called as by
any client. Invariant: between `prepare` and `logits` a contender does all that a request needs, and
it receives nothing that the others do not receive.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from model_store.checkpoint import Checkpoint
from service.bench import calls
from service.bench.comparison import vllm_server
from service.bench.programs import Program, ProgramFailed
from service.bench.service import is_ready
from service.bench.workloads import Request

_SETTLE_SECONDS = 0.5
"""Time in which a contender recovers from timeouts of a pause, before it is measured."""
_SUB_CALL_DOCUMENTS = 25
_SUB_CALLS = 64


@dataclass(frozen=True, slots=True)
class Tokens:
    """Prompt tokens of all answers so far, and those of them that went through the network."""

    prompt: float
    computed: float


class Contender(Protocol):
    """One side of the comparison."""

    name: str
    dtype: str
    concurrent: bool
    """True if several callers can call it at once."""
    programs: list[Program]

    def prepare(self, request: Request) -> list[bytes]:
        """A request as it will be sent; not measured."""
        ...

    def send(self, prepared: Sequence[bytes]) -> list[bytes]:
        """Send and wait; this is measured. May be called from several threads."""
        ...

    def logits(self, answers: Sequence[bytes]) -> list[float]:
        """One logit a document, in the request's order; not measured."""
        ...

    def ready(self) -> bool: ...

    def tokens(self) -> Tokens | None:
        """Token counts so far; None where the contender does not report them."""
        ...


@dataclass
class Service:
    """A gateway at `url`, with its worker in the same process or in another one."""

    name: str
    dtype: str
    programs: list[Program]
    url: str
    counts_reuse: bool = True
    """False for torch, whose engine reports no tokens from a prefix cache."""
    concurrent: bool = True
    key: str = ""
    """The caller's API key, where the gateway asks for one."""

    def prepare(self, request: Request) -> list[bytes]:
        return [json.dumps(request.body()).encode()]

    def send(self, prepared: Sequence[bytes]) -> list[bytes]:
        return [calls.post(self.url, "/rerank", body, key=self.key) for body in prepared]

    def logits(self, answers: Sequence[bytes]) -> list[float]:
        logits: list[float] = []
        for answer in answers:
            results = json.loads(answer)["results"]
            results.sort(key=lambda result: int(result["index"]))
            logits += [result["logit"] for result in results]
        return logits

    def ready(self) -> bool:
        return is_ready(self.url)

    def tokens(self) -> Tokens | None:
        if not self.counts_reuse:
            return None

        by_source = calls.prompt_tokens(self.url)
        return Tokens(sum(by_source.values()), by_source["computed"])


@dataclass
class VllmServer:
    """vLLM's own server at `url`. The client of a tuned one resizes pictures itself and sends a
    request as several calls at once."""

    name: str
    dtype: str
    programs: list[Program]
    url: str
    checkpoint: Checkpoint
    tuned: bool
    concurrent: bool = True
    salt: str = ""
    """Calls with different salts share no prefix; a tuned server's alone."""
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_SUB_CALLS))

    def prepare(self, request: Request) -> list[bytes]:
        if not self.tuned:
            return [vllm_server.rerank_body(request)]
        rules = self.checkpoint.family.images
        return vllm_server.score_bodies(request, rules, _SUB_CALL_DOCUMENTS, salt=self.salt)

    def send(self, prepared: Sequence[bytes]) -> list[bytes]:
        path = "/score" if self.tuned else "/rerank"
        if len(prepared) == 1:
            return [calls.post(self.url, path, prepared[0])]

        return list(self._pool.map(lambda body: calls.post(self.url, path, body), prepared))

    def logits(self, answers: Sequence[bytes]) -> list[float]:
        return vllm_server.read_logits(answers)

    def ready(self) -> bool:
        return calls.answers(self.url, "/health")

    def tokens(self) -> Tokens | None:
        metrics = calls.metrics(self.url)
        prompt = _total(metrics, "vllm:prompt_tokens_total")
        cached = _total(metrics, "vllm:prompt_tokens_cached_total")
        return Tokens(prompt, prompt - cached)


@dataclass
class Loop:
    """The naive loop, which answers one request after the other through a pipe."""

    name: str
    programs: list[Program]
    dtype: str = "float32"
    concurrent: bool = False
    _lock: Lock = field(default_factory=Lock)

    def prepare(self, request: Request) -> list[bytes]:
        return [json.dumps(request.body()).encode() + b"\n"]

    def send(self, prepared: Sequence[bytes]) -> list[bytes]:
        with self._lock:
            return [self._answer(line) for line in prepared]

    def logits(self, answers: Sequence[bytes]) -> list[float]:
        logits: list[float] = []
        for answer in answers:
            logits += map(float, json.loads(answer)["logits"])
        return logits

    def ready(self) -> bool:
        return True

    def tokens(self) -> Tokens | None:
        return None

    def _answer(self, request: bytes) -> bytes:
        process = self.programs[0].process
        assert process.stdin
        assert process.stdout

        process.stdin.write(request)
        process.stdin.flush()

        answer = process.stdout.readline()
        if not answer:
            raise ProgramFailed(f"The naive loop has ended.\n{self.programs[0].tail()}")
        return answer


def pause(contender: Contender) -> None:
    """Stop its processes, the outer ones first, so that no program waits for a stopped one."""
    for program in contender.programs:
        program.pause()


def resume(contender: Contender) -> None:
    """Continue its processes and wait until it is ready again."""
    for program in reversed(contender.programs):
        program.resume()
    time.sleep(_SETTLE_SECONDS)
    contender.programs[0].await_ready(contender.ready)


def _total(metrics: Mapping[str, float], name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(value for sample, value in metrics.items() if sample.partition("{")[0] == name)
