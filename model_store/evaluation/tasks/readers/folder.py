"""A folder in BEIR's layout: `corpus.jsonl`, `queries.jsonl` and `qrels/*.tsv`, with images beside
them.

Rows may name an `image`, a path inside the folder, and queries an `instruction` of their own.
`instruction.txt` is the instruction of all queries, and `candidates.trec` the folder's own first
stage, as a run file. Judgements may have TREC's form. Invariant: everything in the folder was
checked before a dataset is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.evaluation.tasks.dataset import Dataset, TaskUnusable
from model_store.evaluation.tasks.readers.digest import dataset_digest
from model_store.evaluation.tasks.readers.images import FolderImages
from model_store.evaluation.tasks.readers.item_rows import MAX_INSTRUCTION_CHARS
from model_store.evaluation.tasks.readers.json_items import JsonItems
from model_store.evaluation.tasks.readers.judged_queries import JudgedQueries
from model_store.evaluation.tasks.readers.judgements import read_judgements
from model_store.evaluation.tasks.readers.run_file import read_run

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"
_INSTRUCTION, _CANDIDATES = "instruction.txt", ("candidates.trec", "candidates.trec.gz")
_SUFFIXES = (".tsv", ".txt", ".trec", ".qrels", ".tsv.gz", ".txt.gz", ".trec.gz", ".qrels.gz")
MAX_QUERIES = 1_000_000


@dataclass(frozen=True, slots=True)
class FolderSource:
    """The dataset of a folder and of one file of judgements."""

    name: str
    folder: Path
    qrels: Path

    def load(self) -> Dataset:
        """Check and index the files; raises `TaskUnusable`."""
        images = FolderImages(self.folder)
        documents = JsonItems(self.folder / CORPUS, images, query=False)
        queries = JsonItems(self.folder / QUERIES, images, query=True, limit=MAX_QUERIES)
        judgements = read_judgements(self.qrels, queries, documents)
        judged = JudgedQueries(queries, judgements)
        instruction = _read_instruction(self.folder / _INSTRUCTION)
        candidates = self._candidates(judged, documents)

        origin = (documents.digest, queries.digest, instruction)
        return Dataset(
            name=self.name,
            queries=judged,
            documents=documents,
            judgements=judgements,
            digest=dataset_digest(origin, judged.ids, judgements, candidates),
            instruction=instruction,
            candidates=candidates,
            instructions=queries.instructions or None,
        )

    def _candidates(
        self, judged: JudgedQueries, documents: JsonItems
    ) -> Mapping[str, Sequence[str]] | None:
        """The candidates of each judged query; None where the folder has none."""
        for name in _CANDIDATES:
            if (self.folder / name).exists():
                found = read_run(self.folder / name, judged, documents)
                return {query: found.get(query, []) for query in judged.ids}
        return None


def is_dataset(folder: Path) -> bool:
    """True for a folder with a corpus, or with queries."""
    return any((folder / name).is_file() for name in (CORPUS, f"{CORPUS}.gz", QUERIES))


def open_folder(folder: Path, name: str, qrels: Path | None = None) -> FolderSource:
    """The dataset of a folder in BEIR's layout, before it is loaded.

    Judgements are in `qrels`, or in the folder's only file of them, or in that for testing. Raises
    `TaskUnusable`.
    """
    for file in (CORPUS, QUERIES):
        if not (folder / file).is_file():
            packed = " Unpack it first." if (folder / f"{file}.gz").is_file() else ""
            raise TaskUnusable(f"{folder}: there is no {file}.{packed}")
    return FolderSource(name, folder, qrels or _find_qrels(folder))


def _find_qrels(folder: Path) -> Path:
    within = folder / QRELS
    places = [*within.iterdir()] if within.is_dir() else [*folder.glob(f"{QRELS}.*")]
    found = sorted(path for path in places if path.name.endswith(_SUFFIXES))
    if len(found) == 1:
        return found[0]
    for path in found:
        if path.name.partition(".")[0] == "test":
            return path

    if not found:
        raise TaskUnusable(f"{folder}: there are no judgements: {QRELS}/test.tsv is missing.")
    names = " or ".join(str(path) for path in found)
    raise TaskUnusable(f"{folder}: there are several files of judgements; name one: {names}.")


def _read_instruction(path: Path) -> str | None:
    """The instruction of all queries; None where there is no such file."""
    try:
        with path.open("rb") as file:
            content = file.read(4 * MAX_INSTRUCTION_CHARS + 1)
        instruction = content.decode("utf-8-sig").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TaskUnusable(f"{path}: the file cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise TaskUnusable(f"{path}: this is not UTF-8.") from None
    if len(instruction) > MAX_INSTRUCTION_CHARS:
        raise TaskUnusable(f"{path}: there are more than {MAX_INSTRUCTION_CHARS} characters.")
    return instruction or None
