"""The sources of a run: its base and its examples, checked before any weight is loaded.

Depends on files, configuration and family, not on a network. Invariant: after `check`, an example
stops the run only if its file changes, or if an image is damaged behind its header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from model_store.checkpoint import Checkpoint, resolve
from model_store.errors import DataError
from model_store.families.catalogue import trained_readout
from model_store.files import sha256
from model_store.folders.plain import refuse_quantised
from model_store.manifest import CheckpointUnusable
from model_store.training.batches import Batcher
from model_store.training.config import TrainConfig, TrainingError
from model_store.training.data.row_index import Examples
from model_store.training.data.rows import Example
from model_store.training.data.splits import same_rows
from model_store.training.data.validation import SHOWN, refuse_bad_rows
from model_store.training.groups import Draw, Grouper
from model_store.training.head import head_words, labels_of
from model_store.training.lora import target_of


@dataclass(frozen=True, slots=True)
class Sources:
    """A base, its data, and the configuration with the base's defaults filled in."""

    checkpoint: Checkpoint
    examples: Sequence[Example]
    dev: Sequence[Example] | None
    grouper: Grouper
    batcher: Batcher
    config: TrainConfig

    def check(self) -> None:
        """Read all data once; raises `DataError` with the first problems, a line each."""
        data = self.config.data
        for path, examples in ((data.train, self.examples), (data.dev, self.dev)):
            if path is None or examples is None:
                continue
            refuse_bad_rows(path)
            problems = self._problems(examples, taught=path == data.train)
            if problems:
                raise DataError("\n".join(problems))
        self._refuse_shared()

    def _problems(self, examples: Sequence[Example], *, taught: bool) -> list[str]:
        """The first examples that will fail in some epoch, a sentence each; `taught` are those
        that the loss is of."""
        needs_teacher = taught and self.config.loss.teacher is not None
        problems: list[str] = []
        for number in range(len(examples)):
            example = examples[number]
            problem = self.grouper.problem(example)
            if problem is None and needs_teacher and example.teacher_scores is None:
                problem = (
                    f"{example.location}: the row has no teacher_scores, which loss.teacher needs."
                )
            if problem is not None:
                problems.append(problem)
            if len(problems) == SHOWN:
                break
        return problems

    def _refuse_shared(self) -> None:
        """Raise `DataError` with the first held-out rows that are among those for training: figures
        of such rows mean nothing."""
        data = self.config.data
        if data.dev is None:
            return

        shared = list(islice(same_rows(data.train, data.dev), SHOWN))
        if shared:
            hint = (
                f"{data.dev} must hold out what {data.train} does not teach: `gmr data split` makes"
                " such parts."
            )
            raise DataError("\n".join([*shared, hint]))

    def facts(self) -> dict[str, Any]:
        """The base and the rows: a run is resumed only where these are the same.

        Held-out rows are among them where they decide the end of the run.
        """
        data = self.config.data
        facts: dict[str, Any] = {
            "base": self.checkpoint.digest,
            "train": sha256(data.train),
            "examples": len(self.examples),
        }
        if self.config.early_stop is not None and data.dev is not None:
            facts["dev"] = sha256(data.dev)
        return facts


def open_sources(config: TrainConfig, processes: int) -> Sources:
    """Resolve the base and index the data for a run of some processes; raises `TrainingError` or
    `DataError`."""
    try:
        checkpoint = resolve(config.model, revision=config.revision)
        refuse_quantised(
            checkpoint.name,
            checkpoint.folder,
            "and cannot be trained: take the checkpoint that they were made from",
        )
    except CheckpointUnusable as error:
        raise TrainingError(str(error).replace("RERANK_MODEL_REVISION", "revision")) from None

    manifest, data = checkpoint.manifest, config.data
    most = manifest.max_tokens if data.max_tokens is None else data.max_tokens
    if most > manifest.max_tokens:
        raise TrainingError(
            f"data.max_tokens is {most}, and {checkpoint.name} reads {manifest.max_tokens}."
        )
    if config.batch.tokens < most:
        raise TrainingError(
            f"batch.tokens is {config.batch.tokens}, less than the {most} tokens that one pair may"
            " have."
        )

    try:
        trained_readout(manifest, config.loss.direction)  # raises where no loss is for the family
        family = checkpoint.with_template(config.template).open_family(max_tokens=most)
        architecture = checkpoint.decoder
    except CheckpointUnusable as error:
        raise TrainingError(str(error)) from None
    head_words(config.head, labels_of(family))  # raises where they do not fit the family

    draw = Draw(data.negatives, data.random_share, config.seed)
    lora = config.lora.model_copy(update={"target": target_of(config.lora, architecture)})
    return Sources(
        checkpoint=checkpoint,
        examples=_examples(data.train, processes),
        dev=None if data.dev is None else _examples(data.dev, processes),
        grouper=Grouper(family, manifest.default_instruction, draw),
        batcher=Batcher(
            budget=config.batch.tokens,
            family=family,
            architecture=architecture,
            shared_prefix=config.batch.shared_prefix,
        ),
        config=config.model_copy(update={"lora": lora}),
    )


def _examples(path: Path, least: int) -> Examples:
    examples = Examples(path)
    if len(examples) < least:
        raise DataError(f"{path}: there are {len(examples)} examples, and {least} are needed.")
    return examples
