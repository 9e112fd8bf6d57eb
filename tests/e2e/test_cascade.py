"""A cascade of two sizes of images over gmr-tiny, from its folder to its metrics, in one process of
`gmr serve`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import free_port, running
from tests.gateway.cascades.published import cascade_folder, tiny_stages
from tests.gateway.encoded_pictures import bare, encode, picture

pytestmark = pytest.mark.slow
IMAGES = [
    {"image": bare(encode(picture((width, 400))))} for width in (300, 340, 380, 420, 460, 500)
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("cascade")
    port = free_port()
    with (
        running(
            "serve",
            port=port,
            log=folder / "log",
            RERANK_CASCADES=str(cascade_folder(folder / "fast", *tiny_stages())),
            RERANK_CASCADE_COMPARE_SHARE="1",
        ) as url,
        httpx.Client(base_url=url, timeout=120) as opened,
    ):
        yield opened


def rerank(client: httpx.Client, **fields: Any) -> Any:
    answer = client.post("/rerank", json={"query": "a grey picture", "documents": IMAGES} | fields)
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer.json()


def compared(client: httpx.Client) -> float:
    metrics = client.get("/metrics").text
    found = re.search(
        r'rerank_cascade_comparisons_total{cascade="fast",outcome="compared"} (\S+)', metrics
    )
    assert found
    return float(found[1])


def test_the_kept_documents_have_the_scores_of_the_model_alone(client: httpx.Client) -> None:
    answer = rerank(client, model="fast")
    alone = {each["index"]: each for each in rerank(client, model="gmr-tiny")["results"]}

    stages = [each["meta"]["stage"] for each in answer["results"]]
    assert stages == [2, 2, 1, 1, 1, 1], "a quarter of six, rounded up"
    for result in answer["results"][:2]:
        assert result["logit"] == pytest.approx(alone[result["index"]]["logit"], abs=1e-4)
    assert all(each["meta"]["image_tokens"] <= 16 for each in answer["results"][2:])
    assert max(each["meta"]["image_tokens"] for each in alone.values()) > 16
    scores = [each["relevance_score"] for each in answer["results"]]
    assert scores == sorted(scores, reverse=True)

    until = time.monotonic() + 60
    while not compared(client) and time.monotonic() < until:
        time.sleep(0.1)
    assert compared(client) == 1


def test_texts_have_the_answer_of_the_model_alone(client: httpx.Client) -> None:
    texts = [f"document number {number}" for number in range(8)]
    answer = rerank(client, model="fast", documents=texts)
    alone = rerank(client, documents=texts)
    assert [(each["index"], each["logit"]) for each in answer["results"]] == [
        (each["index"], each["logit"]) for each in alone["results"]
    ]
    assert {each["meta"]["stage"] for each in answer["results"]} == {2}
