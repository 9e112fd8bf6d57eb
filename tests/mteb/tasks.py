"""Tasks of mteb that are made here, from generated queries of the nine cells; nothing is
downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from random import Random
from typing import Any

from datasets import Dataset, Features, Image, Value
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from PIL import Image as Pil

from model_store.synthetic import cells
from model_store.synthetic.examples import Example, Side
from model_store.training.data.instructions import MODALITIES

CATEGORIES = {"text": "t", "image": "i", "image,text": "it"}


def examples(cell: str, queries: int, negatives: int) -> list[Example]:
    return [
        cells.sample(cell, Random(f"mteb/{cell}/{number}"), "heldout", negatives)
        for number in range(queries)
    ]


def picture(side: Side) -> bytes | None:
    """The picture of a side as PNG."""
    for part in side:
        if isinstance(part, Pil.Image):
            written = BytesIO()
            part.save(written, "PNG")
            return written.getvalue()
    return None


def text(side: Side) -> str | None:
    """The text of a side."""
    return next((part for part in side if isinstance(part, str)), None)


def table(rows: Sequence[dict[str, Any]]) -> Dataset:
    """Rows as mteb has them: a column for each modality."""
    features = {
        name: Image() if name == "image" else Value("string") for name in rows[0] if name != "id"
    }
    return Dataset.from_list(list(rows), features=Features({"id": Value("string"), **features}))


def row(identifier: str, side: Side) -> dict[str, Any]:
    columns = {"text": text(side), "image": picture(side)}
    return {"id": identifier} | {name: each for name, each in columns.items() if each is not None}


def described(name: str, category: str, prompt: str | None) -> TaskMetadata:
    modalities = [kind for kind in ("text", "image") if kind[0] in category.replace("2", "")]
    return TaskMetadata(
        name=name,
        description="generated queries",
        type="Any2AnyRetrieval",
        category=category,
        modalities=modalities,
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        dataset={"path": "none", "revision": "0"},
        prompt=prompt,
    )


class MadeTask(AbsTaskRetrieval):
    """Queries with candidates of their own, as a task of mteb."""

    metadata = described("MadeTask", "t2t", None)

    def __init__(
        self,
        metadata: TaskMetadata,
        queries: Sequence[dict[str, Any]],
        documents: Sequence[dict[str, Any]],
        relevant: dict[str, dict[str, int]],
        candidates: dict[str, list[str]] | None,
    ) -> None:
        super().__init__()
        self.metadata = metadata
        split = {
            "queries": table(queries),
            "corpus": table(documents),
            "relevant_docs": relevant,
            "top_ranked": candidates,
        }
        self.made = {"test": split}

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        self.dataset = {"default": self.made}
        self.data_loaded = True


def cell_task(cell: str, queries: int = 2, negatives: int = 3) -> tuple[MadeTask, list[Example]]:
    """A task of one cell, and its examples; the relevant document is the last candidate."""
    made = examples(cell, queries, negatives)
    rows, documents, relevant, candidates = [], [], {}, {}
    for number, example in enumerate(made):
        query = f"q{number}"
        rows.append(row(query, example.query))
        names = [f"{query}-d{place}" for place in range(len(example.documents))]
        documents += [row(*pair) for pair in zip(names, example.documents, strict=True)]
        relevant[query] = {names[0]: 1}
        candidates[query] = names[::-1]

    query_kind, document_kind = MODALITIES[cell]
    category = f"{CATEGORIES[query_kind]}2{CATEGORIES[document_kind]}"
    metadata = described(f"Made{cell.replace('-', '')}", category, made[0].instruction)
    return MadeTask(metadata, rows, documents, relevant, candidates), made
