"""The contenders: our service and vLLM's tuned server, each with either side first in the prompt,
and each called by two tenants.

Depends on how a contender is started, not on what it keeps. Invariant: the two tenants call the
same programs, and the second one asks for no document that is timed.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from model_store.checkpoint import Checkpoint
from service.bench.comparison.contenders import Contender, Service, VllmServer
from service.bench.comparison.starting import start
from service.bench.plan import Plan

_KEYS = ("tenant-of-the-measurement", "tenant-of-the-check")
_TENANTS = {"RERANK_API_KEYS": ",".join(_KEYS), "RERANK_METRICS_PUBLIC": "true"}


@dataclass(frozen=True, slots=True)
class Served:
    """One contender. `other` is the same programs as another tenant calls them, so that no prefix
    of the first tenant's calls is reused."""

    name: str
    prompt: str
    contender: Contender
    other: Contender


def start_served(
    name: str, prompt: str, plan: Plan, checkpoint: Checkpoint, scratch: Path, stack: ExitStack
) -> Served:
    """Start a contender, wait until it is ready, and have `stack` stop it; raises
    `ProgramFailed`. Its logs and template go to `scratch`."""
    contender = start(name, plan, checkpoint, scratch, stack, **_TENANTS)
    first, other = contender, contender
    if isinstance(contender, Service):
        first, other = (replace(contender, key=key) for key in _KEYS)
    elif isinstance(contender, VllmServer):
        other = replace(contender, salt=_KEYS[1])
    return Served(name, prompt, first, other)
