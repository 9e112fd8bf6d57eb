"""Searches a small corpus of texts and pictures: BM25 retrieves, and a reranker orders.

It needs a running service, bm25s and httpx. Invariant: the reranker sees only what was retrieved.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import sys
from pathlib import Path

import bm25s
import httpx

CORPUS = Path(__file__).parent / "corpus"
RETRIEVED = 20
"""Documents that BM25 retrieves. It finds no picture without words: those are all kept."""


def read_rows(name: str) -> list[dict]:
    """The rows of a file of the corpus."""
    text = (CORPUS / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


class Retriever:
    """BM25 over the texts of documents."""

    def __init__(self, documents: list[dict]) -> None:
        self.with_words = [each for each in documents if "text" in each]
        self.without_words = [each for each in documents if "text" not in each]
        texts = [each["text"] for each in self.with_words]
        self.index = bm25s.BM25()
        self.index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)

    def search(self, query: str) -> list[dict]:
        """The documents that share words with the query, the best first."""
        tokens = bm25s.tokenize([query], show_progress=False)
        count = min(RETRIEVED, len(self.with_words))
        numbers, scores = self.index.retrieve(tokens, k=count, show_progress=False)
        return [
            self.with_words[number]
            for number, score in zip(numbers[0], scores[0], strict=True)
            if score > 0
        ]


def as_item(document: dict) -> dict:
    """A document as the service takes it: its picture as base64."""
    item = dict(document)
    if "image" in item:
        item["image"] = base64.b64encode((CORPUS / item["image"]).read_bytes()).decode()
    return item


def rerank(client: httpx.Client, query: str, documents: list[dict]) -> list[str]:
    """The ids of the documents, the most relevant first."""
    body = {"query": query, "documents": [as_item(document) for document in documents]}
    answer = client.post("/rerank", json=body)
    if answer.is_error:
        sys.exit(answer.json()["message"])
    return [result["id"] for result in answer.json()["results"]]


def ndcg(ranking: list[str], relevant: list[str], k: int = 10) -> float:
    """nDCG@k where a document is relevant or not."""
    gain = sum(
        1 / math.log2(rank + 1) for rank, each in enumerate(ranking[:k], 1) if each in relevant
    )
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(relevant), k) + 1))
    return gain / best


def evaluate(client: httpx.Client, retriever: Retriever) -> None:
    """Print nDCG@10 of BM25, and of the reranker on what BM25 retrieved."""
    measured: dict[str, list[tuple[float, float]]] = {}
    for question in read_rows("page-questions.jsonl") + read_rows("exhibit-questions.jsonl"):
        query, relevant = question["query"], question["relevant"]
        found = retriever.search(query)
        before = ndcg([document["id"] for document in found], relevant)
        after = ndcg(rerank(client, query, found + retriever.without_words), relevant)
        measured.setdefault(question["kind"], []).append((before, after))

    measured["all"] = [pair for pairs in measured.values() for pair in pairs]
    print("nDCG@10     questions   BM25   reranked")
    for kind, pairs in measured.items():
        before, after = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        print(f"{kind:<10} {len(pairs):>10} {before:>6.3f} {after:>10.3f}")


def main() -> None:
    """Answer one question, or measure all questions of the corpus."""
    parser = argparse.ArgumentParser(description="Search the museum.")
    parser.add_argument("question", nargs="?", help="without it, all questions are measured")
    url = os.environ.get("RERANK_URL", "http://127.0.0.1:8000")
    parser.add_argument("--url", default=url, help="of the service; default: RERANK_URL")
    arguments = parser.parse_args()

    documents = read_rows("pages.jsonl") + read_rows("exhibits.jsonl")
    retriever = Retriever(documents)
    with httpx.Client(base_url=arguments.url, timeout=60) as client:
        try:
            if arguments.question is None:
                evaluate(client, retriever)
                return
            found = retriever.search(arguments.question)
            reranked = rerank(client, arguments.question, found + retriever.without_words)
        except httpx.ConnectError:
            sys.exit(f"Nothing answers at {arguments.url}: start `gmr serve` first.")

    by_id = {document["id"]: document for document in documents}
    rankings = {"BM25": [document["id"] for document in found], "reranked": reranked}
    for title, ranking in rankings.items():
        print(title)
        for rank, identifier in enumerate(ranking[:3], 1):
            document = by_id[identifier]
            shown = [document.get("image", identifier), document.get("text", "")]
            print(f"  {rank}.", *filter(None, shown))


if __name__ == "__main__":
    main()
