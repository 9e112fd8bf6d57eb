"""A run's folder: what identifies the run, and for each dataset its candidates and journals.

    run.json                                 the identity, written first
    datasets/003-NAME/candidates.jsonl       the dataset's header, then the candidates of each query
    datasets/003-NAME/results-0-of-1.jsonl   the results of shard 0 of 1, a line a query

Does not depend on what scores queries. Invariant: a query has one result in `results`, however
often the run was killed, and whatever shards have done it; a failure gives way to scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model_store.evaluation.runs.candidates import read_header
from model_store.evaluation.runs.identity import (
    FORMAT,
    MAX_DATASETS,
    DatasetHeader,
    RunIdentity,
    differences,
)
from model_store.evaluation.runs.journal import Entry, RunUnusable, entries
from model_store.evaluation.runs.lock import replacing_lock
from model_store.evaluation.runs.query_result import QueryResult
from model_store.files import create_file, write_atomically

RUN = "run.json"
_DATASETS = "datasets"
MAX_IDENTITY_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """The folder of one dataset of a run."""

    path: Path

    @property
    def candidates(self) -> Path:
        """The file of the dataset's header and of its queries' candidates."""
        return self.path / "candidates.jsonl"

    def header(self) -> DatasetHeader | None:
        """The dataset's header; None where the run has not begun with it. Raises `RunUnusable`."""
        return read_header(self.candidates)

    def journal(self, shard: int, shards: int) -> Path:
        """The journal of a shard."""
        return self.path / f"results-{shard}-of-{shards}.jsonl"

    def journals(self) -> list[Path]:
        """The journals of all shards that have begun with the dataset."""
        return sorted(self.path.glob("results-*.jsonl"))


def entry_by_query(folders: Iterable[DatasetFolder]) -> dict[str, Entry]:
    """The entry of each query of a dataset, of all shards: scores before failures, and the last
    failure where there are failures alone. Raises `RunUnusable` and `OSError`."""
    found: dict[str, Entry] = {}
    for folder in folders:
        for journal in folder.journals():
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
        number = self.identity.datasets.index(name)
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60]
        return [
            DatasetFolder(folder / _DATASETS / f"{number:03d}-{readable}")
            for folder in self.folders
        ]

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
                raise RunUnusable(f"{folder.path} is of another run: {'; '.join(differing)}.")
            first = header
        return first

    def results(self, dataset: str | None = None) -> Iterator[QueryResult]:
        """The results of one dataset, or of all: a query once, in the order of the table and then
        of the queries' ids. Raises `RunUnusable` and `OSError`."""
        for name in self.identity.datasets if dataset is None else [dataset]:
            self.header(name)
            found = entry_by_query(self.dataset_folders(name))
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
    path = folder / RUN
    try:
        with path.open("rb") as file:
            content = file.read(MAX_IDENTITY_BYTES)
        identity = msgspec.json.decode(content, type=RunIdentity)
    except (FileNotFoundError, NotADirectoryError):
        raise RunUnusable(f"{folder}: there is no run in it ({RUN} is missing).") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        raise RunUnusable(f"{path}: it cannot be read.") from None
    if identity.format != FORMAT:
        raise RunUnusable(f"{path}: it is of format {identity.format}, not {FORMAT}.")
    return identity


def begin_run(folder: Path, identity: RunIdentity) -> Run:
    """Create the folder of a run, or open it to continue the run.

    A run that has not found any candidates is replaced. Raises `RunUnusable` where the folder holds
    another run or other files, and `OSError`.
    """
    names = identity.datasets
    if len(names) > MAX_DATASETS:
        raise RunUnusable(f"A run has {MAX_DATASETS:,} datasets at most, and not {len(names):,}.")
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise RunUnusable(f"The benchmark names the dataset {double} twice.")

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / RUN).exists() and any(map(_is_foreign, folder.iterdir())):
        raise RunUnusable(f"{folder}: it holds files, and no run: give another folder.")
    content = msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n"
    create_file(folder / RUN, content)

    if differences(read_identity(folder), identity):
        with replacing_lock(folder):
            if (folder / _DATASETS).exists():
                check_identity(folder, identity)
            write_atomically(folder / RUN, content)
    return Run(identity, (folder,))


def check_identity(folder: Path, identity: RunIdentity) -> None:
    """Raise `RunUnusable` where a folder holds another run."""
    if differing := differences(read_identity(folder), identity):
        raise RunUnusable(
            f"{folder} holds another run: {'; '.join(differing)}; give another folder."
        )


def _is_foreign(path: Path) -> bool:
    """False for a file that a killed process may leave before there is a run."""
    return not (path.name.startswith(".") or path.suffix == ".lock")
