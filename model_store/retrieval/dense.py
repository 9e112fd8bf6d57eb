"""Vectors of texts by any sentence-transformers model.

Depends on that library, not on an index. Invariant: a query is embedded with its instruction, where
a form for it is given, or else with the model's own prompt for queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sentence_transformers
from sentence_transformers import SentenceTransformer

from model_store.errors import DataError
from model_store.retrieval.embedder import Content, Query
from model_store.retrieval.found import Vectors

BATCH = 32


class Dense:
    """An `Embedder` of texts. `query_form` may hold `{instruction}` and must hold `{query}`."""

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device: str | None = None,
        query_form: str | None = None,
    ) -> None:
        """Load a folder or a hub model; raises `DataError` where that fails, or where the form has
        other names."""
        self._form = query_form
        if query_form is not None:
            _fill(query_form, "", "")

        try:
            self._model = SentenceTransformer(model, revision=revision, device=device)
        except Exception as error:  # the library raises errors of other libraries
            if "trust_remote_code" in str(error):
                raise DataError(
                    f"The model {model!r} has Python code of its own, and code of models is not"
                    " run: give a model of the library's own modules."
                ) from None
            raise DataError(
                f"The model {model!r} cannot be loaded ({type(error).__name__}): give a folder or a"
                " hub id that it can read."
            ) from None
        self.dimensions = int(self._model.get_embedding_dimension() or 0)
        self.described: dict[str, Any] = {
            "embedder": "sentence-transformers",
            "model": model,
            "revision": revision,
            "query_form": query_form,
            "sentence_transformers": sentence_transformers.__version__,
        }

    def queries(self, queries: Sequence[Query]) -> Vectors:
        """As `Embedder.queries`."""
        texts = [_text(query.content, query.location) for query in queries]
        if self._form is None:
            return self._embed(self._model.encode_query, texts)

        filled = [
            _fill(self._form, query.instruction or "", text)
            for query, text in zip(queries, texts, strict=True)
        ]
        return self._embed(self._model.encode, filled, prompt="")

    def documents(self, contents: Sequence[Content], locations: Sequence[str]) -> Vectors:
        """As `Embedder.documents`."""
        texts = [
            _text(content, location) for content, location in zip(contents, locations, strict=True)
        ]
        return self._embed(self._model.encode_document, texts)

    def _embed(self, encode: Any, texts: list[str], **more: Any) -> Vectors:
        vectors = encode(
            texts,
            batch_size=BATCH,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
            **more,
        )
        return np.asarray(vectors, np.float32)


def _fill(form: str, instruction: str, query: str) -> str:
    if "{query}" not in form:
        raise DataError(f"The query's form {form!r} has no {{query}}.")
    # not `format`: a text may have braces
    return form.replace("{instruction}", instruction).replace("{query}", query)


def _text(content: Content, location: str) -> str:
    if content.text is None:
        raise DataError(
            f"{location}: there is no text, and a sentence-transformers model reads text alone;"
            " gme reads images."
        )

    return content.text
