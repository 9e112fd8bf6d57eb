"""The probe of the torch engine: a short pair that distinguishes a failing network from a failing
pair.

Depends on a checkpoint's prompts and its network, not on calls in progress. Invariant: the probe
has the form of every other pair.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from model_store.checkpoint import Checkpoint
from model_store.families.generated_answer import AnswerReader
from model_store.families.prompt import Prompt
from service.observability.logs import log
from service.wire import ScoreCall
from service.worker.engines.isolation import is_logit
from service.worker.engines.prompts import CallRenderer
from service.worker.engines.torch.network import AnsweringNetwork, Network


class Probe:
    """Scores one short pair. `new_reader` makes readers of answers, for networks that write."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        network: Network | AnsweringNetwork,
        new_reader: Callable[[], AnswerReader],
    ) -> None:
        self._network, self._new_reader = network, new_reader
        call = ScoreCall(checkpoint.name, None, ["a"], [["b"]], [], truncate=True)
        (prompt,) = CallRenderer(checkpoint, call).prompts(call.documents)
        assert isinstance(prompt, Prompt)
        self._prompt = prompt
        self.failed = False
        """True if the network failed for the probe when it was last tried."""

    def works(self) -> bool:
        """Score the probe; returns False where the network itself has failed."""
        self._network.release_memory()
        try:
            self.failed = not self._is_scored()
        except Exception as failure:  # the network documents no narrower kind
            self.failed = True
            log("the network has failed", logging.ERROR, failure=failure)
        return not self.failed

    def _is_scored(self) -> bool:
        network, suffixes = self._network, [self._prompt.suffix]
        prefix = network.read_prefix(self._prompt.prefix, {})
        if isinstance(network, AnsweringNetwork):
            # the first token alone: a whole answer may take minutes
            network.begin(prefix, suffixes, [self._new_reader()]).step()
            return True
        (logit,) = network.score(prefix, suffixes, {})
        return is_logit(logit)
