"""The files that sentence-transformers writes beside a network: modules, prompts, activation.

Depends on JSON, not on templates or networks. Invariant: a module that is not one of
sentence-transformers' own is refused, since it would be code of the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from model_store.json_files import read_json, read_json_list
from model_store.manifest import CheckpointUnusable

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
TRANSFORMER_SETTINGS = "sentence_bert_config.json"
CROSS_ENCODER = "CrossEncoder"

_PACKAGE = "sentence_transformers."
_MAX_MODULES = 16
_SIGMOID, _IDENTITY = "sigmoid", "identity"
_TRANSFORMS = {
    "torch.nn.modules.activation.Sigmoid": _SIGMOID,
    "torch.nn.Sigmoid": _SIGMOID,
    "torch.nn.modules.linear.Identity": _IDENTITY,
    "torch.nn.Identity": _IDENTITY,
}
"""Names of transforms by the class that sentence-transformers applies to scores."""


@dataclass(frozen=True, slots=True)
class Module:
    """An entry of `modules.json`: the name of its class, and the folder of its files."""

    kind: str
    path: str


@dataclass(frozen=True)
class CrossEncoderFiles:
    """The files of one folder, read and not yet understood."""

    name: str
    """The model, for messages."""
    folder: Path
    modules: tuple[Module, ...]
    settings: Mapping[str, Any]
    """`config_sentence_transformers.json`; empty where there is none."""

    @property
    def chain(self) -> tuple[str, ...]:
        """The modules' classes in order, such as `Transformer`, `LogitScore`."""
        return tuple(module.kind for module in self.modules)

    @property
    def is_cross_encoder(self) -> bool:
        """False for an embedding model, or where no file says what the modules are for."""
        return self.settings.get("model_type") == CROSS_ENCODER

    @property
    def default_prompt(self) -> str:
        """The prompt that sentence-transformers adds to a pair by default; empty for none.

        Raises `CheckpointUnusable` for prompts of another form.
        """
        named = self.settings.get("default_prompt_name")
        prompts = self.settings.get("prompts") or {}
        if not isinstance(prompts, dict):
            raise CheckpointUnusable(f"{self.name}: prompts of {SETTINGS} is no object.")
        if named is None:
            return ""

        prompt = prompts.get(named) if isinstance(named, str) else None
        if not isinstance(prompt, str):
            raise CheckpointUnusable(
                f"{self.name}: default_prompt_name of {SETTINGS} is {named!r:.80}, which is no text"
                " in prompts."
            )
        return prompt

    def transform(self, config: Mapping[str, Any]) -> str:
        """The transform of a single score by name: that of `activation_fn`, or a sigmoid.

        `config` is the network's `config.json`, where older versions keep the activation. Raises
        `CheckpointUnusable` for an activation that is not known.
        """
        nested = config.get("sentence_transformers")
        places = (
            (SETTINGS, self.settings.get("activation_fn")),
            ("config.json", nested.get("activation_fn") if isinstance(nested, dict) else None),
            ("config.json", config.get("sbert_ce_default_activation_function")),
        )
        for file, stated in places:
            if stated is None:
                continue
            if not isinstance(stated, str) or stated not in _TRANSFORMS:
                raise CheckpointUnusable(
                    f"{self.name}: the activation function of {file} is {stated!r:.80}, and only"
                    " Sigmoid and Identity of torch.nn are applied."
                )
            return _TRANSFORMS[stated]
        return _SIGMOID

    def config_of(self, kind: str) -> tuple[str, Mapping[str, Any]]:
        """The name of a module's own file, and its object; raises `CheckpointUnusable`."""
        (module,) = [module for module in self.modules if module.kind == kind]
        file = (PurePosixPath(module.path) / "config.json").as_posix()
        return file, self._required(file)

    def transformer_settings(self) -> Mapping[str, Any]:
        """`sentence_bert_config.json`; raises `CheckpointUnusable`."""
        return self._required(TRANSFORMER_SETTINGS)

    def _required(self, file: str) -> Mapping[str, Any]:
        content = read_json(self.name, self.folder, file)
        if content is None:
            raise CheckpointUnusable(f"{self.name}: there is no {file}, which {MODULES} calls for.")
        return content


def read_modules(name: str, folder: Path) -> CrossEncoderFiles | None:
    """The files of sentence-transformers in a folder; None where it has no `modules.json`.

    Raises `CheckpointUnusable` for modules that are no list of sentence-transformers' own.
    """
    listed = read_json_list(name, folder, MODULES)
    if listed is None:
        return None
    if not 1 <= len(listed) <= _MAX_MODULES:
        raise CheckpointUnusable(f"{name}: {MODULES} lists {len(listed)} modules.")

    modules = tuple(_module(name, entry) for entry in listed)
    settings = read_json(name, folder, SETTINGS) or {}
    return CrossEncoderFiles(name, folder, modules, settings)


def _module(name: str, entry: object) -> Module:
    stated = entry if isinstance(entry, dict) else {}
    kind, path = stated.get("type"), stated.get("path")
    if not isinstance(kind, str) or not isinstance(path, str):
        raise CheckpointUnusable(f"{name}: {MODULES} has an entry without type or path.")
    if not kind.startswith(_PACKAGE):
        raise CheckpointUnusable(
            f"{name}: {MODULES} names the module {kind!r:.80}, which is none of"
            " sentence-transformers' own: code of a folder is never run."
        )

    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts or "\\" in path or "\0" in path:
        raise CheckpointUnusable(f"{name}: a path of {MODULES} leads out of the folder.")
    return Module(kind.rpartition(".")[2], path)
