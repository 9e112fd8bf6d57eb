"""The retrievers by name.

Depends on the module of every retriever, and imports only the one that is opened. Invariant: a
retriever from `open_retriever` is ready to search, since a corpus without vectors gets them first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import WrongUsage
from model_store.retrieval.embedder import Embedder
from model_store.training.data.corpus import Corpus
from model_store.training.negatives.retrievers import NoRetriever, Retriever

NAMES = ("bm25", "dense", "gme", "gme-vllm", "none")
WITHOUT_MODEL = ("bm25", "none")


@dataclass(frozen=True, slots=True)
class Choice:
    """A retriever by name, and its model; `vectors` is the folder of the corpus's vectors, `device`
    torch's name of a device."""

    name: str
    model: str | None = None
    revision: str | None = None
    device: str | None = None
    query_form: str | None = None
    vectors: Path | None = None

    def check(self) -> None:
        """Raise `WrongUsage` where the parts of the choice do not fit each other."""
        if self.name not in NAMES:
            raise WrongUsage(
                f"There is no retriever {self.name!r}: it is one of {', '.join(NAMES)}."
            )
        if (self.name in WITHOUT_MODEL) != (self.model is None):
            raise WrongUsage(
                f"The retriever {self.name} has no --model."
                if self.model
                else f"The retriever {self.name} needs --model."
            )
        if self.query_form is not None and self.name != "dense":
            raise WrongUsage(f"Only the retriever dense has a --query-form, not {self.name}.")

    def vectors_of(self, corpus: Path) -> Path | None:
        """The folder of a corpus's vectors; None for a retriever without vectors."""
        if self.name in WITHOUT_MODEL:
            return None
        return self.vectors or corpus.with_name(corpus.name + ".vectors")


def open_embedder(choice: Choice) -> Embedder:
    """Load the model that makes vectors; raises `DataError`."""
    choice.check()
    assert choice.model is not None
    match choice.name:
        case "dense":
            from model_store.retrieval.dense import Dense

            return Dense(
                choice.model,
                revision=choice.revision,
                device=choice.device,
                query_form=choice.query_form,
            )
        case "gme":
            from model_store.retrieval.gme import Gme

            return Gme(choice.model, revision=choice.revision, device=choice.device)
        case _:
            from model_store.retrieval.gme_vllm import VllmGme

            return VllmGme(choice.model, revision=choice.revision)


def open_retriever(
    choice: Choice, corpus: Corpus, progress: Callable[[int], None] = lambda documents: None
) -> Retriever:
    """Open the retriever over `corpus`; raises `DataError`.

    `progress` is called with the number of documents whose vectors were made since the last call.
    """
    choice.check()
    if choice.name == "none":
        return NoRetriever()

    folder = choice.vectors_of(corpus.path)
    if folder is None:
        from model_store.training.negatives.bm25 import Bm25

        return Bm25(corpus)

    from model_store.retrieval.vectors import embed_corpus
    from model_store.training.negatives.vector_search import VectorSearch

    embedder = open_embedder(choice)
    embed_corpus(corpus, embedder, folder, progress=progress)
    return VectorSearch(corpus, embedder, folder)
