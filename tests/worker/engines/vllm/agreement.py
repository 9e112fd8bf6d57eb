"""Agreement of two engines on a call."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from service.wire import Refused, ScoreCall, Scored
from service.worker.engines.base import Engine
from tests.worker.calls import verdicts
from tests.worker.engines.vllm.engine_worker import EngineWorker, Pair

TOLERANCE = 1e-4
"""Ten times what is seen with fp32 on CPUs, and a tenth of what is promised."""


def logit(pair: Pair) -> float:
    assert isinstance(pair, Scored), pair
    return pair.logit


def drift(found: Sequence[Pair], wanted: Sequence[Pair]) -> float:
    """The largest difference of logits."""
    return max(abs(logit(one) - logit(other)) for one, other in zip(found, wanted, strict=True))


def same(found: Pair, wanted: Pair) -> bool:
    """Refused alike, or equal in all but the last digits of the logit and what the engine had
    cached."""
    if not isinstance(found, Scored) or not isinstance(wanted, Scored):
        return isinstance(found, Refused) and found == wanted
    aside = {"logit": 0.0, "reused_tokens": 0}
    return (
        structs.replace(found, **aside) == structs.replace(wanted, **aside)
        and abs(found.logit - wanted.logit) < TOLERANCE
    )


async def agree(worker: EngineWorker, oracle: Engine, call: ScoreCall) -> bool:
    found, wanted = await worker.ask(call), await verdicts(oracle, call)
    differing = [
        (index, *pair)
        for index, pair in enumerate(zip(found, wanted, strict=True))
        if not same(*pair)
    ]
    assert not differing, differing
    return True
