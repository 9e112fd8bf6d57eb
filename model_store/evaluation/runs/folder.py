"""A run's folder: what identifies the run, and for each dataset its candidates and journals.

    run.json                            the identity, written first
    datasets/003-NAME/dataset.json      the dataset's digest and the number of its queries
    datasets/003-NAME/candidates.jsonl  the candidates of each query, where a first stage found them
    datasets/003-NAME/results-0-of-1.jsonl   the results of shard 0 of 1, a line a query

Does not depend on what scores queries. Invariant: a query has one result in `results`, however
often the run was killed, and whatever shards have done it; a failure gives way to scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from model_store.evaluation.runs.identity import (
    FORMAT,
    MAX_DATASETS,
    DatasetHeader,
    RunIdentity,
    differences,
)
from model_store.evaluation.runs.journal import Entry, RunUnusable, entries
from model_store.evaluation.runs.query_result import QueryResult
from model_store.files import create_file

RUN, DATASET = "run.json", "dataset.json"
MAX_DESCRIPTION_BYTES = 16 * 2**20
_Described = TypeVar("_Described", RunIdentity, DatasetHeader)


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """The folder of one dataset of a run."""

    path: Path

    def header(self) -> DatasetHeader | None:
        """The dataset's header; None where the run has not begun with it. Raises `RunUnusable`."""
        return _read(self.path / DATASET, DatasetHeader)

    def begin(self, header: DatasetHeader) -> None:
        """Write the header, or check it. Raises `RunUnusable` for another one, and `OSError`."""
        self.path.mkdir(parents=True, exist_ok=True)
        _write_or_compare(self.path / DATASET, header)

    def journal(self, shard: int, shards: int) -> Path:
        """The journal of a shard."""
        return self.path / f"results-{shard}-of-{shards}.jsonl"

    def entries(self) -> dict[str, Entry]:
        """The entry of each query, of all shards: scores before failures, and else the last one.

        Raises `RunUnusable` and `OSError`.
        """
        found: dict[str, Entry] = {}
        for journal in sorted(self.path.glob("results-*.jsonl")):
            for query, entry in entries(journal):
                if query not in found or found[query].failed:
                    found[query] = entry
        return found


@dataclass(frozen=True, slots=True)
class Run:
    """A run, or several folders of one: shards that were scored on machines of their own."""

    identity: RunIdentity
    folders: tuple[Path, ...]

    def dataset_folders(self, name: str) -> list[DatasetFolder]:
        """The folders of a dataset, one in each folder of the run."""
        return [dataset_folder(folder, self.identity, name) for folder in self.folders]

    def header(self, name: str) -> DatasetHeader | None:
        """The header of a dataset; None where the run has not begun with it.

        Raises `RunUnusable`, also where two folders have different headers.
        """
        first: DatasetHeader | None = None
        for folder in self.dataset_folders(name):
            header = folder.header()
            if header is None:
                continue
            if first is not None and (differing := differences(header, first)):
                raise RunUnusable(f"{folder.path}: another run's: {'; '.join(differing)}.")
            first = header
        return first

    def results(self, dataset: str | None = None) -> Iterator[QueryResult]:
        """The results of one dataset, or of all: a query once, in the order of the table and then
        of the queries' ids. Raises `RunUnusable` and `OSError`."""
        for name in self.identity.datasets if dataset is None else [dataset]:
            self.header(name)
            found: dict[str, Entry] = {}
            for folder in self.dataset_folders(name):
                for query, entry in folder.entries().items():
                    if query not in found or found[query].failed:
                        found[query] = entry
            for query in sorted(found):
                yield found[query].read()


def open_run(*folders: Path) -> Run:
    """The run in a folder, whether it is finished or not; in several, its shards together.

    Raises `RunUnusable` where a folder has no run, or that of another identity.
    """
    identities = [read_identity(folder) for folder in folders]
    for folder, identity in zip(folders, identities, strict=True):
        if differing := differences(identity, identities[0]):
            raise RunUnusable(
                f"{folder} is no part of the run in {folders[0]}: {'; '.join(differing)}."
            )
    return Run(identities[0], tuple(folders))


def read_identity(folder: Path) -> RunIdentity:
    """The identity of the run in a folder. Raises `RunUnusable`."""
    identity = _read(folder / RUN, RunIdentity)
    if identity is None:
        raise RunUnusable(f"{folder}: there is no run in it ({RUN} is missing).")
    if identity.format != FORMAT:
        raise RunUnusable(f"{folder / RUN}: it is of format {identity.format}, not {FORMAT}.")
    return identity


def begin_run(folder: Path, identity: RunIdentity) -> Run:
    """Create the folder of a run, or open it to continue the run.

    Raises `RunUnusable` where it holds another run or other files, and `OSError`.
    """
    names = identity.datasets
    if len(names) > MAX_DATASETS:
        raise RunUnusable(f"A run has {MAX_DATASETS:,} datasets at most, and not {len(names):,}.")
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise RunUnusable(f"The benchmark names the dataset {double} twice.")

    if not (folder / RUN).exists() and folder.is_dir() and any(folder.iterdir()):
        raise RunUnusable(f"{folder}: it holds files, and no run: give another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    _write_or_compare(folder / RUN, identity)
    return Run(identity, (folder,))


def dataset_folder(run: Path, identity: RunIdentity, name: str) -> DatasetFolder:
    """The folder of a dataset; its number makes it unique, its name readable."""
    number = identity.datasets.index(name)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60]
    return DatasetFolder(run / "datasets" / f"{number:03d}-{readable}")


def _write_or_compare(path: Path, described: _Described) -> None:
    """Write a description unless it is there; raises `RunUnusable` where another one is."""
    content = msgspec.json.format(msgspec.json.encode(described), indent=2) + b"\n"
    if not path.exists() and create_file(path, content):
        return
    found = _read(path, type(described))
    if found is not None and (differing := differences(found, described)):
        raise RunUnusable(
            f"{path.parent} holds another run: {'; '.join(differing)}; give another folder."
        )


def _read(path: Path, kind: type[_Described]) -> _Described | None:
    """A description; None where there is none. Raises `RunUnusable`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DESCRIPTION_BYTES)
        return msgspec.json.decode(content, type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        raise RunUnusable(f"{path}: it cannot be read.") from None
