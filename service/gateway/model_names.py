"""Which model a name means: a served one, an operator's alias for one, or none.

Knows names and who may use which, nothing of how a model is served. Invariant: a caller learns the
names of the models that it may use, and of no others; an alias is as good as the name that it
stands for.
"""

from __future__ import annotations

from collections.abc import Mapping

from service.errors import Forbidden, ModelNotFound
from service.gateway.admission.authentication import Caller
from service.gateway.fleet.pool import WorkerPool
from service.wire import WorkerInfo

DEFAULT_NAMES = ("", "default/not-specified")
"""What clients send that were told no model; the second is infinity_client's."""
MAX_NAMED = 10
"""Models that an error names."""
MAX_NAME = 64
"""Characters of a model's name in an error."""


class ModelNames:
    """The names under which the workers' models are asked for.

    `aliases`: other names, and the model that each stands for.
    """

    def __init__(self, workers: WorkerPool, aliases: Mapping[str, str]) -> None:
        self._workers = workers
        self._aliases = aliases

    def find(self, caller: Caller, name: str | None = None) -> WorkerInfo:
        """The model of a name, or the default one.

        Raises `NoWorker`, `Forbidden`, and `ModelNotFound`; the last two name the models that the
        caller may use. A caller bound to some models cannot tell whether another one exists.
        """
        meant = self.meant(name)
        if meant is not None and not caller.may_use(meant):
            raise self._forbidden(caller)
        try:
            model = self._workers.model(meant)
        except ModelNotFound:
            raise ModelNotFound(self._said("No such model is served here.", caller)) from None
        if not caller.may_use(model.model):
            raise self._forbidden(caller)
        return model

    def usable(self, caller: Caller) -> dict[str, str]:
        """Every name that the caller may use, and the model that it means: aliases come last."""
        served = [name for name in self._workers.names() if caller.may_use(name)]
        names = {name: name for name in served if name not in self._aliases}
        for alias, model in sorted(self._aliases.items()):
            if model in served:
                names[alias] = model
        return names

    def meant(self, name: str | None) -> str | None:
        """The model that a name stands for, None for the default one.

        An alias goes before a served model of the same name.
        """
        if name is None or (name in DEFAULT_NAMES and name not in self._aliases):
            return None
        return self._aliases.get(name, name)

    def _forbidden(self, caller: Caller) -> Forbidden:
        return Forbidden(self._said(Forbidden.message, caller))

    def _said(self, sentence: str, caller: Caller) -> str:
        """A sentence, and the names that the caller may use."""
        names = [name[:MAX_NAME] for name in self.usable(caller) if name.isprintable()]
        if not names:
            return sentence
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        return f"{sentence} You may use: {', '.join(names[:MAX_NAMED])}{more}."
