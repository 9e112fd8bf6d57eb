"""Requests for documents that come back: each document for the first time once, and every query
once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store.families.tokens import LiteralTokenizer
from service.bench.reuse.pool import Pool
from service.bench.workloads import Request
from tests.conftest import TINY

TOKENIZER = LiteralTokenizer.load(TINY)


def texts(request: Request) -> list[str]:
    return [part for part in request.documents if isinstance(part, str)]


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 12), documents=st.integers(1, 12))
def test_every_document_is_asked_for_before_it_comes_back(size: int, documents: int) -> None:
    documents = min(size, documents)
    pool = Pool("D", size, documents, TOKENIZER)

    first: list[str] = []
    for number in range(pool.first_requests):
        first += texts(pool.first(number))
    assert len(first) == len(set(first)) == size

    for number in range(3):
        again = texts(pool.again(number))
        assert len(set(again)) == documents
        assert set(again) <= set(first)


def test_queries_never_repeat_and_documents_beside_the_pool_are_in_no_other_request() -> None:
    pool = Pool("D", 6, 3, TOKENIZER)
    requests = [pool.first(0), pool.first(1), pool.again(0), pool.again(1)]
    beside = [pool.beside(0), pool.beside(1)]
    assert len({request.query for request in (*requests, *beside)}) == 6
    assert texts(beside[0]) == texts(beside[1])
    for request in requests:
        assert not set(texts(request)) & set(texts(beside[0]))


def test_requests_depend_on_their_number_alone() -> None:
    assert Pool("D", 6, 3, TOKENIZER).again(1) == Pool("D", 6, 3, TOKENIZER).again(1)
    assert Pool("D", 6, 3, TOKENIZER).again(1) != Pool("D", 6, 3, TOKENIZER).again(2)


def test_queries_are_short_and_documents_have_the_lengths_of_the_workload() -> None:
    request = Pool("D", 4, 4, TOKENIZER).first(0)
    assert isinstance(request.query, str)
    lengths = [len(ids) for ids in TOKENIZER.encode([request.query, *texts(request)])]
    assert lengths == [20, 130, 130, 130, 130]
    assert request.cache == "bypass"

    (picture,) = Pool("DI", 1, 1, TOKENIZER).first(0).documents
    assert isinstance(picture, Image.Image)
    assert picture.size == (448, 448)
