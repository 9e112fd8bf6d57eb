"""Names of models: a name of a request to the model that is meant by it.

Depends on names and on the models that a caller may use, not on how a model is served. Invariant:
an error or a list names only models that the caller may use, and an alias works wherever the name
of its model does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from service.errors import Forbidden, ModelNotFound
from service.gateway.admission.authentication import Caller
from service.wire import WorkerInfo

DEFAULT_NAMES = ("", "default/not-specified")
"""Names that clients send where none is configured; the second one is infinity_client's."""
MAX_LISTED_NAMES = 10
"""Models that an error names."""
MAX_NAME_CHARACTERS = 64
"""Characters of a model's name in an error."""


class ServedModels(Protocol):
    """The models that are served, by name; without a name, the default one."""

    def names(self) -> list[str]: ...
    def model(self, name: str | None = None) -> WorkerInfo: ...


class ModelNames:
    """The names of the models that are served; `aliases` are further names, each with its model."""

    def __init__(self, served: ServedModels, aliases: Mapping[str, str]) -> None:
        self._served = served
        self._aliases = aliases

    def over(self, served: ServedModels) -> ModelNames:
        """The same names and aliases for other models."""
        return ModelNames(served, self._aliases)

    def find(self, caller: Caller, name: str | None = None) -> WorkerInfo:
        """The model of a name, or the default model.

        Raises `NoWorker`, `Forbidden` and `ModelNotFound`; the last two name the models that the
        caller may use. A caller that may use only some models gets `Forbidden` for any other name,
        served or not.
        """
        model_name = self.resolve(name)
        if model_name is not None and not caller.may_use(model_name):
            raise self._forbidden(caller)

        try:
            model = self._served.model(model_name)
        except ModelNotFound:
            message = self._with_names("No such model is served here.", caller)
            raise ModelNotFound(message) from None

        if not caller.may_use(model.model):
            raise self._forbidden(caller)
        return model

    def usable(self, caller: Caller) -> dict[str, str]:
        """Every name that the caller may use, with its model; aliases come last."""
        served = [name for name in self._served.names() if caller.may_use(name)]
        names = {name: name for name in served if name not in self._aliases}
        for alias, model in sorted(self._aliases.items()):
            if model in served:
                names[alias] = model
        return names

    def resolve(self, name: str | None) -> str | None:
        """The name of the model that a name stands for; None for the default model.

        An alias takes precedence over a served model of the same name.
        """
        if name is None:
            return None
        if name in DEFAULT_NAMES and name not in self._aliases:
            return None
        return self._aliases.get(name, name)

    def _forbidden(self, caller: Caller) -> Forbidden:
        return Forbidden(self._with_names(Forbidden.message, caller))

    def _with_names(self, sentence: str, caller: Caller) -> str:
        """The sentence of an error, followed by the names that the caller may use."""
        names = [name[:MAX_NAME_CHARACTERS] for name in self.usable(caller) if name.isprintable()]
        if not names:
            return sentence

        unlisted = len(names) - MAX_LISTED_NAMES
        more = f" and {unlisted} more" if unlisted > 0 else ""
        return f"{sentence} You may use: {', '.join(names[:MAX_LISTED_NAMES])}{more}."
