"""The results of a run: an adapter in peft's form, a trained head if any, and a manifest, last.

Depends on files and names, not on learning. Invariant: where `manifest.json` exists, the files that
it names are complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from model_store.adapters.folder import READ_OUT, ROWS, TEMPLATE
from model_store.checkpoint import Checkpoint
from model_store.errors import DataError
from model_store.families.catalogue import trained_readout
from model_store.files import sync
from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.manifest import MANIFEST, digest_files
from model_store.output_files import write_json
from model_store.training.config import TrainConfig, TrainingError
from model_store.training.head import head_words, labels_of
from model_store.training.journal import METRICS, read_metrics
from model_store.training.lora import write_adapter
from model_store.training.plots import PLOT

ADAPTER = "adapter"
HEAD = "head.safetensors"
MAX_MANIFEST_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class Ended:
    """The last step of a run, the step whose weights it leaves, and why it ended."""

    step: int
    weights_of_step: int
    reason: str


def finished(folder: Path, facts: Mapping[str, Any]) -> bool:
    """True for a run that is complete; raises `TrainingError` where the folder is another run's."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError
        run = json.loads(path.read_bytes())["run"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        raise TrainingError(f"{path}: this is no manifest of a training run.") from None
    refuse_other_run(run, facts, folder)
    return True


def refuse_other_run(run: Mapping[str, Any], facts: Mapping[str, Any], folder: Path) -> None:
    """Raise `TrainingError` that names the first fact in which the run that was begun differs."""
    for key in sorted({*run, *facts}):
        if run.get(key) != facts.get(key):
            before, now = str(run.get(key))[:80], str(facts.get(key))[:80]
            raise TrainingError(
                f"{folder}: this run was begun with another {key} ({before}, now {now}); choose"
                " another output."
            )


def refuse_other_method(folder: Path, states: Path, other: str) -> None:
    """Raise `TrainingError` where a folder has saved states of another method, whose names begin
    with `other`: this method cannot read what they are of."""
    if states.is_dir() and any(path.name.startswith(other) for path in states.iterdir()):
        raise TrainingError(
            f"{folder}: this run was begun with another method; choose another output."
        )


def write_outcome(
    folder: Path,
    network: PeftModel,
    weights: Mapping[str, Tensor],
    *,
    base: Checkpoint,
    config: TrainConfig,
    facts: Mapping[str, Any],
    ended: Ended,
) -> None:
    """Write adapter, head and manifest; `weights` are by their names in the `Reranker`. Raises
    `TrainingError`."""
    lora: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith("network."):
            lora[name.removeprefix("network.")] = tensor

    read_out = trained_readout(base.manifest, config.loss.direction).name
    template = config.template or base.manifest.template
    names: list[str] = []
    if config.head.kind != "tokens":
        names.append(HEAD)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"rows": weights["head.rows"]}, folder / HEAD)
        except (OSError, SafetensorError) as error:
            raise _unwritten(folder, error) from None
    described = {
        "run": dict(facts),
        "config": config.model_dump(mode="json"),
        "base": {"name": base.name, "digest": base.digest},
        "read_out": read_out,
        "head": {"kind": config.head.kind, "words": _words(config, base)},
    }
    metadata = {READ_OUT: read_out, ROWS: config.head.kind, TEMPLATE: template}
    write_run(
        folder,
        network,
        lora,
        model=config.model,
        metadata=metadata,
        described=described,
        ended=ended,
        others=names,
    )


def write_run(
    folder: Path,
    network: PeftModel,
    lora: Mapping[str, Tensor],
    *,
    model: str,
    metadata: Mapping[str, str],
    described: Mapping[str, Any],
    ended: Ended,
    others: Sequence[str] = (),
) -> None:
    """Write the adapter, and last the manifest of it, the metrics, the curves and `others`.

    `lora` are the maps by their names in `network`, `model` the base's name in the configuration,
    and `described` the other fields of the manifest. Raises `TrainingError`.
    """
    names = [f"{ADAPTER}/{ADAPTER_CONFIG}", f"{ADAPTER}/{ADAPTER_WEIGHTS}", METRICS, PLOT, *others]
    try:
        write_adapter(folder / ADAPTER, network, dict(lora), model, metadata)
        for name in names:
            sync(folder / name)
        digests = digest_files(folder, names)
        manifest = {
            **described,
            "ended": asdict(ended),
            "last": _last_values(folder, ended.weights_of_step),
            "files": {name: digest.model_dump() for name, digest in digests.items()},
        }
        write_json(folder / MANIFEST, manifest)
    except (OSError, SafetensorError, DataError) as error:
        raise _unwritten(folder, error) from None


def _unwritten(folder: Path, error: Exception) -> TrainingError:
    return TrainingError(
        f"{folder}: what was learnt cannot be written"
        f" ({getattr(error, 'strerror', None) or error})."
    )


def _words(config: TrainConfig, base: Checkpoint) -> list[str]:
    """The words of the head's rows; random rows have none."""
    if config.head.kind == "random":
        return []
    return list(head_words(config.head, labels_of(base.family)))


def _last_values(folder: Path, step: int) -> dict[str, float]:
    """The last value of each metric in the journal, up to a step."""
    values: dict[str, float] = {}
    for row in read_metrics(folder):
        if row["step"] <= step:
            values |= row
    return values
