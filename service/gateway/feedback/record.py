"""Records of answers: what feedback refers to, without any content.

The module depends on contents and results, on no store. A digest is keyed by the tenant, as cache
keys are, so that equal documents of one tenant are told as equal and none can be guessed.
Invariant: a record has no text and no picture of a request, and a value that the service did not
write for its key is not read as a record.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from service.fields import MAX_ID_CHARS
from service.gateway.admission.authentication import Caller
from service.gateway.dialects.answers import returned
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.media.content import Content, Text, framed, identity
from service.items import Item

SCHEMA = b"gmr-rerank feedback 1"
_MAC_BYTES = 16
_ANSWER_BYTES = 8
_DIGEST_BYTES = 16
_SCOPE_BYTES = 16
_RANGE = 2**64
_METADATA_IDS = ("id", "_id", "doc_id", "document_id")
"""Fields of a document's metadata that have its id in other systems."""

Digest = Annotated[bytes, msgspec.Meta(min_length=_DIGEST_BYTES, max_length=_DIGEST_BYTES)]
DocumentId = str | int | None


class RecordedResult(msgspec.Struct, frozen=True, array_like=True):
    """One result: the document's index in the request, its id, its keyed digest, its raw score."""

    index: int
    id: DocumentId
    digest: Digest
    score: float


class AnswerRecord(msgspec.Struct, frozen=True, array_like=True):
    """An answer: its model, keyed digests of query and instruction, and its results in order.

    `answer` is random and tells two answers of one request id apart. `at` is in Unix seconds.
    `instruction` is None for the model's own.
    """

    answer: Annotated[bytes, msgspec.Meta(min_length=_ANSWER_BYTES, max_length=_ANSWER_BYTES)]
    request_id: str
    tenant: str
    at: float
    model: str
    digest: str
    instruction: Digest | None
    query: Digest
    results: list[RecordedResult]

    def line(self) -> dict[str, Any]:
        """The record as JSON's types."""
        instruction = None if self.instruction is None else self.instruction.hex()
        return {
            "model": self.model,
            "digest": self.digest,
            "instruction": instruction,
            "query": self.query.hex(),
            "results": [_result_line(result) for result in self.results],
        }


def _result_line(result: RecordedResult) -> dict[str, Any]:
    named = {} if result.id is None else {"id": result.id}
    return {"index": result.index, **named, "digest": result.digest.hex(), "score": result.score}


@dataclass(frozen=True, slots=True)
class AnsweredDocument:
    """A document of an answer, with its content."""

    index: int
    id: DocumentId
    score: float
    content: Content


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer with the contents that it ranked, until its record is made. `tenant` is the
    operator's name for the caller."""

    answer: bytes
    scope: str
    tenant: str
    request_id: str
    at: float
    model: str
    digest: str
    instruction: str | None
    query: Content
    documents: Sequence[AnsweredDocument]

    def size(self) -> int:
        """The bytes that it holds, about."""
        held = _size(self.query) + len(self.instruction or "")
        return held + sum(_size(document.content) + 128 for document in self.documents)


def answered(
    caller: Caller,
    tenant: str,
    request_id: str,
    at: float,
    query: RerankQuery,
    result: RerankResult,
) -> Answered:
    """The answer to a query that is one for all documents, with its contents."""
    documents: list[AnsweredDocument] = []
    for each in returned(query, result):
        item = query.documents[each.index]
        named = document_id(item) if isinstance(item, Item) else None
        content = result.contents[each.index]
        documents.append(AnsweredDocument(each.index, named, each.score.logit, content))

    return Answered(
        answer=secrets.token_bytes(_ANSWER_BYTES),
        scope=caller.scope,
        tenant=tenant,
        request_id=request_id,
        at=at,
        model=result.model.model,
        digest=result.model.digest,
        instruction=query.instruction,
        query=result.query,
        documents=documents,
    )


def document_id(item: Item) -> DocumentId:
    """A document's own id, or the one in its metadata."""
    if item.id is not None:
        return item.id
    for name in _METADATA_IDS:
        value = (item.metadata or {}).get(name)
        if isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS:
            return value
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
            return value
    return None


class RecordKeys:
    """Keys, digests and authentication codes of records, under one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hmac.digest(secret, SCHEMA, "sha256")
        self._decoder = msgspec.msgpack.Decoder(AnswerRecord)

    def key(self, scope: str, request_id: str) -> bytes:
        """The key of the record of a scope's request."""
        return self._keyed(b"key", scope.encode(), request_id.encode())

    def scope_id(self, scope: str) -> bytes:
        """The bytes that stand for a scope."""
        return self._keyed(b"scope", scope.encode())[:_SCOPE_BYTES]

    def is_sampled(self, request_id: str, share: float) -> bool:
        """True for about `share` of all request ids, in every gateway with the secret."""
        drawn = self._keyed(b"sample", request_id.encode())[:8]
        return int.from_bytes(drawn, "big") < share * _RANGE

    def record(self, made: Answered) -> AnswerRecord:
        """The record of an answer."""
        digest = self._digester(made.scope)
        results = [
            RecordedResult(each.index, each.id, digest(identity(each.content)), each.score)
            for each in made.documents
        ]
        instruction = made.instruction
        return AnswerRecord(
            answer=made.answer,
            request_id=made.request_id,
            tenant=made.tenant,
            at=made.at,
            model=made.model,
            digest=made.digest,
            instruction=None if instruction is None else digest(b"n" + instruction.encode()),
            query=digest(identity(made.query)),
            results=results,
        )

    def sealed(self, key: bytes, record: bytes) -> bytes:
        """An encoded record with an authentication code, for a store that others can write to."""
        return record + self._keyed(b"mac", key, record)[:_MAC_BYTES]

    def opened(self, key: bytes, value: bytes) -> bytes | None:
        """The encoded record in a sealed value; None where it is another's, or changed."""
        record, code = value[:-_MAC_BYTES], value[-_MAC_BYTES:]
        is_ours = hmac.compare_digest(code, self._keyed(b"mac", key, record)[:_MAC_BYTES])
        return record if is_ours else None

    def decoded(self, record: bytes) -> AnswerRecord:
        """The record that `encoded` was given."""
        return self._decoder.decode(record)

    def _keyed(self, *fields: bytes) -> bytes:
        return hmac.digest(self._secret, framed(*fields), "sha256")

    def _digester(self, scope: str) -> Callable[[bytes], bytes]:
        """Digests contents under the key of a scope."""
        keyed = hashlib.blake2b(
            key=self._keyed(b"digest", scope.encode()), digest_size=_DIGEST_BYTES
        )

        def digest(content: bytes) -> bytes:
            own = keyed.copy()
            own.update(content)
            return own.digest()

        return digest


def encoded(record: AnswerRecord) -> bytes:
    """A record as bytes."""
    return msgspec.msgpack.encode(record)


def _size(content: Content) -> int:
    size = 0
    for part in content:
        size += len(part.text) if isinstance(part, Text) else len(part.data)
    return size
