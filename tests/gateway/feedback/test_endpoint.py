"""Feedback on answers: what is taken, what is refused, from whom, and what is kept of it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from tests.gateway.encoded_pictures import encode, picture
from tests.gateway.feedback.giving import answer, clicks, give, lines, until_written, written
from tests.gateway.images.storing import gateway, kept_open, put, ranks, reference
from tests.metrics import metric_value

Clients = dict[str, httpx.AsyncClient]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feedback")


@pytest.fixture(scope="module")
async def clients(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clients]:
    """Three tenants, of which two may send feedback, and the content of one is kept."""
    async for clients in kept_open(
        tmp_path_factory.mktemp("keys"),
        tenants=("one", "other", "third"),
        feedback_folder=folder,
        feedback_tenants=("one", "other"),
        feedback_content=True,
        feedback_content_tenants=("other",),
    ):
        yield clients


async def test_feedback_is_kept_with_the_answer_and_without_its_content(
    clients: Clients, folder: Path
) -> None:
    order = await answer(clients["one"], "plain", instruction="find secrets")
    taken = await give(
        clients["one"],
        "plain",
        shown=2,
        events=[{"index": order[0], "clicked": True}, {"index": order[1], "grade": 3}],
    )
    assert taken.status_code == httpx.codes.ACCEPTED
    assert taken.json() == {
        "request_id": "plain",
        "accepted": 2,
        "repeated": 0,
        "sampled": True,
    }

    (events,) = await written(folder, "events")
    assert events["shown"] == order[:2]
    assert events["events"] == [
        {"index": order[0], "clicked": True},
        {"index": order[1], "grade": 3},
    ]
    (kept,) = lines(folder, "answer")
    assert (kept["tenant"], kept["request_id"], kept["model"]) == ("one", "plain", "m")
    assert [result["index"] for result in kept["results"]] == order
    named = {result["index"]: result.get("id") for result in kept["results"]}
    assert named == {0: None, 1: "best", 2: 7}
    assert kept["answer"] == events["answer"]
    assert len({result["digest"] for result in kept["results"]}) == 3
    assert len(kept["instruction"]) == len(kept["query"]) == 32
    text = "".join(path.read_text() for path in (folder / "events").iterdir())
    for private in ("circle that", "0033333", "private", "secrets"):
        assert private not in text


async def test_an_answer_without_feedback_leaves_nothing(clients: Clients, folder: Path) -> None:
    await answer(clients["one"], "unclicked")
    await answer(clients["one"], "clicked")
    await clicks(clients["one"], "clicked", 0)
    await until_written(folder, "clicked")
    assert "unclicked" not in {line["request_id"] for line in lines(folder)}


async def test_content_is_kept_of_the_tenants_that_are_named(
    clients: Clients, folder: Path
) -> None:
    data = encode(picture((30, 20)))
    await put(clients["other"], data)
    sent = await ranks(clients["other"], data, data, query={"text": "q", "image": reference(data)})
    request_id = sent.headers["x-request-id"]
    (content,) = await written(folder, "content")
    assert (content["request_id"], content["tenant"]) == (request_id, "other")
    assert content["query"] == [{"image": reference(data)}, {"text": "q"}]
    assert content["documents"] == {
        "0": [{"image": reference(data)}],
        "1": [{"image": reference(data)}],
    }
    assert "instruction" not in content
    (kept,) = (folder / "pictures").glob("*/*")
    assert (kept.name, kept.read_bytes()) == (f"{reference(data)[7:]}.png", data)
    assert kept.stat().st_mode & 0o007 == 0 or kept.parent.stat().st_mode & 0o077 == 0


async def test_the_same_event_counts_once(clients: Clients, folder: Path) -> None:
    await answer(clients["one"], "twice")
    assert (await clicks(clients["one"], "twice", 0, 0)).json()["repeated"] == 1
    assert (await clicks(clients["one"], "twice", 0)).json() == {
        "request_id": "twice",
        "accepted": 0,
        "repeated": 1,
        "sampled": True,
    }
    graded = await give(clients["one"], "twice", events=[{"index": 0, "grade": 2}])
    assert graded.json()["accepted"] == 1
    again = await give(clients["one"], "twice", events=[{"index": 0, "grade": 0}])
    assert again.json()["accepted"] == 1  # another grade replaces it


async def test_what_was_shown_counts_once_and_another_order_replaces_it(
    clients: Clients, folder: Path
) -> None:
    order = await answer(clients["one"], "shown")
    pages = [3, order, order[::-1], 2, 2]
    for page in pages:
        assert (await give(clients["one"], "shown", shown=page)).status_code == 202
    await answer(clients["one"], "after")
    await clicks(clients["one"], "after", 0)
    await until_written(folder, "after", "events")
    told = [line["shown"] for line in lines(folder, "events") if line["request_id"] == "shown"]
    assert told == [order, order[::-1], order[:2]]


async def test_one_answer_has_a_bounded_number_of_lines(clients: Clients) -> None:
    await answer(clients["one"], "chatty")
    for number in range(200):
        sent = await give(clients["one"], "chatty", events=[{"index": 0, "grade": number % 2 + 1}])
        assert sent.json()["accepted"] == 1
    refused = await give(clients["one"], "chatty", events=[{"index": 1, "grade": 1}])
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")


async def test_a_tenant_gives_feedback_on_its_own_answers_alone(clients: Clients) -> None:
    """Whatever is wrong with an id, the answers are alike: nobody learns of another's requests."""
    await answer(clients["one"], "mine")
    unknown = [
        await clicks(clients["other"], "mine", 0),
        await clicks(clients["other"], "never-asked", 0),
        await clicks(clients["other"], "no/id/at/all", 0),
    ]
    bodies = [each.json() | {"request_id": ""} for each in unknown]
    assert {each.status_code for each in unknown} == {404}
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["code"] == "unknown_request"

    third = await answer(clients["third"], "mine")
    refused = await clicks(clients["third"], "mine", third[0])
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await clicks(clients["one"], "mine", 0)).status_code == 202


async def test_an_event_is_on_a_result_of_the_answer(clients: Clients) -> None:
    order = await answer(clients["one"], "cut", top_n=2)
    left = ({0, 1, 2} - set(order)).pop()
    for fields, place in (
        (
            {"events": [{"index": order[0], "clicked": True}, {"index": left, "grade": 0}]},
            ["events", 1, "index"],
        ),
        ({"shown": [order[1], left]}, ["shown", 1]),
        ({"shown": [order[1], order[1]]}, ["shown", 1]),
        ({"shown": 1, "events": [{"index": order[1], "clicked": True}]}, ["events", 0, "index"]),
        (
            {"shown": [order[1]], "events": [{"index": order[0], "grade": 1}]},
            ["events", 0, "index"],
        ),
    ):
        refused = await give(clients["one"], "cut", **fields)
        assert refused.status_code == 400
        assert [error["loc"] for error in refused.json()["errors"]] == [place]
    assert (await give(clients["one"], "cut", shown=90)).status_code == 202


async def test_a_batch_refuses_its_entries_one_by_one(clients: Clients) -> None:
    await answer(clients["one"], "first")
    batch = [
        {"request_id": "first", "events": [{"index": 0, "clicked": True}]},
        {"request_id": "missing", "shown": 1},
        {"request_id": "first", "events": [{"index": 9, "clicked": True}]},
    ]
    sent = await clients["one"].post("/v1/feedback", json={"batch": batch})
    assert sent.status_code == 202
    entries = sent.json()["batch"]
    assert [entry.get("code") for entry in entries] == [None, "unknown_request", "invalid_request"]
    assert entries[2]["message"].startswith("events[0].index must be")


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, ["request_id"]),
        ({"request_id": "x"}, []),
        ({"request_id": "", "shown": 1}, ["request_id"]),
        ({"request_id": "x", "shown": 0}, ["shown"]),
        ({"request_id": "x", "shown": True}, ["shown"]),
        ({"request_id": "x", "shown": []}, ["shown"]),
        ({"request_id": "x", "clicks": [1]}, ["clicks"]),
        ({"request_id": "x", "events": [{"index": 0, "clicked": False}]}, ["events", 0]),
        ({"request_id": "x", "events": [{"index": 0, "clicked": True, "grade": 1}]}, ["events", 0]),
        ({"request_id": "x", "events": [{"index": -1, "grade": 1}]}, ["events", 0, "index"]),
        ({"request_id": "x", "events": [{"index": True, "grade": 1}]}, ["events", 0, "index"]),
        ({"request_id": "x", "events": [{"index": 0, "grade": 101}]}, ["events", 0, "grade"]),
        ({"request_id": "x", "events": [{"index": 0, "grade": 1}] * 1_001}, ["events"]),
        ({"batch": []}, ["batch"]),
        ({"batch": [{"request_id": "x", "shown": 1}] * 101}, ["batch"]),
        ({"batch": [7]}, ["batch", 0]),
        ([], []),
    ],
)
async def test_a_body_of_another_form_is_refused_at_its_place(
    clients: Clients, body: Any, loc: list[str | int]
) -> None:
    refused = await clients["one"].post("/v1/feedback", json=body)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert loc in [error["loc"] for error in refused.json()["errors"]]


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_request"),
        (b"[" * 100_000, {}, 400, "invalid_request"),
        (b'{"request_id": "x", "shown": NaN}', {}, 400, "invalid_request"),
        (b"\xff", {}, 400, "invalid_request"),
        (b" " * (2**18 + 1), {}, 413, "body_too_large"),
        (gzip.compress(b" " * 2**20), {"content-encoding": "gzip"}, 413, "body_too_large"),
        (b"shown=1", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
    ],
)
async def test_what_is_no_json_is_refused(
    clients: Clients, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    headers = {"content-type": "application/json"} | headers
    refused = await clients["one"].post("/v1/feedback", content=content, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (status, code)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["request_id", "events", "shown", "index", "grade", "clicked", "batch"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=JSON)
async def test_no_body_is_a_failure_of_the_service(clients: Clients, body: Any) -> None:
    before = await clients["one"].get("/health/ready")
    sent = await clients["one"].post(
        "/v1/feedback", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert sent.status_code in (202, 400, 404)
    assert before.status_code == 200


async def test_every_dialect_takes_feedback_and_a_stream_and_pairs_do_not(
    clients: Clients,
) -> None:
    texts = {"query": "q", "texts": ["1", "2"]}
    headers = {"x-request-id": "tei"}
    assert (await clients["one"].post("/rerank", json=texts, headers=headers)).is_success
    assert (await clicks(clients["one"], "tei", 1)).status_code == 202

    pairs = {"queries": ["q", "r"], "documents": ["1", "2"]}
    headers = {"x-request-id": "pairs"}
    assert (await clients["one"].post("/score", json=pairs, headers=headers)).is_success
    assert (await clicks(clients["one"], "pairs", 1)).status_code == 404


async def test_a_request_is_forgotten(clients: Clients, folder: Path) -> None:
    await answer(clients["one"], "regretted")
    await clicks(clients["one"], "regretted", 0)
    for client in (clients["other"], clients["one"]):
        forgotten = await client.delete("/v1/feedback/regretted")
        assert forgotten.json() == {"request_id": "regretted", "forgotten": True}
        assert lines(folder, "forget")[-1]["request_id"] == "regretted"  # once that is said
    assert (await clicks(clients["one"], "regretted", 1)).status_code == 404
    found = await written(folder, "forget", 2)
    assert [line["tenant"] for line in found if line["request_id"] == "regretted"] == [
        "other",
        "one",
    ]


async def test_a_key_with_the_name_of_a_tenant_forgets_its_own_requests_alone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "f"
    async with gateway(tmp_path, tenants=("one", "key:one"), feedback_folder=folder) as clients:
        for name, client in clients.items():
            await answer(client, name.rpartition(":")[0] or "tenants")
        await clicks(clients["one"], "tenants", 0)
        await clicks(clients["key:one"], "key", 0)
        assert (await clients["key:one"].delete("/v1/feedback/tenants")).is_success
        assert (await clicks(clients["one"], "tenants", 1)).status_code == 202
    assert [line["tenant"] for line in lines(folder, "forget")] == ["key:one"]
    assert [line["tenant"] for line in lines(folder, "answer")] == ["one", "key:one"]


async def test_feedback_is_off_unless_there_is_a_folder(tmp_path: Path) -> None:
    async with gateway(tmp_path) as clients:
        await answer(clients["one"], "asked")
        refused = await clicks(clients["one"], "asked", 0)
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
        assert (await clients["one"].delete("/v1/feedback/asked")).status_code == 404
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


async def test_the_share_is_one_of_request_ids(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"feedback_folder": tmp_path / "f", "feedback_share": 0.5}
    kept["cache_key_secret"] = "s" * 16
    async with gateway(tmp_path, **kept) as clients:
        sampled: list[bool] = []
        for number in range(40):
            await answer(clients["one"], f"r{number}")
            taken = (await clicks(clients["one"], f"r{number}", 0)).json()
            assert taken["accepted"] == taken["sampled"]
            sampled.append(taken["sampled"])
    assert 8 <= sum(sampled) <= 32
    assert len({line["request_id"] for line in lines(tmp_path / "f", "events")}) == sum(sampled)


async def test_the_window_ends_and_its_memory_is_bounded(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"feedback_folder": tmp_path / "f", "feedback_memory_bytes": 2**16}
    async with gateway(tmp_path, **kept) as clients:
        for number in range(300):
            await answer(clients["one"], f"r{number}")
        assert (await clicks(clients["one"], "r299", 0)).status_code == 202
        assert (await clicks(clients["one"], "r0", 0)).status_code == 404
        assert metric_value("rerank_feedback_record_bytes", tier="memory") <= 2**16

    async with gateway(tmp_path, feedback_folder=tmp_path / "f", feedback_window_seconds=1) as late:
        await answer(late["one"], "old")
        assert (await clicks(late["one"], "old", 0)).status_code == 202
        async with asyncio.timeout(60):
            while (sent := await clicks(late["one"], "old", 1)).status_code == 202:
                pass
        assert sent.json()["code"] == "unknown_request"


async def test_a_full_buffer_drops_answers_and_refuses_feedback(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"feedback_folder": tmp_path / "f", "feedback_buffer_bytes": 2**16}
    before = metric_value("rerank_feedback_answers_total", outcome="dropped")
    async with gateway(tmp_path, **kept) as clients:
        long = ["0" * 2**15 + "1", "0" * 2**15 + "2"]
        assert await answer(clients["one"], "long", documents=long) == [1, 0]
        assert metric_value("rerank_feedback_answers_total", outcome="dropped") == before + 1
        assert (await clicks(clients["one"], "long", 0)).status_code == 404
        await answer(clients["one"], "short")
        assert (await clicks(clients["one"], "short", 0)).status_code == 202


@pytest.mark.parametrize(
    "values",
    [
        {"feedback_content": True},
        {"feedback_tenants": "one"},
        {"feedback_folder": "f", "feedback_content_tenants": "one"},
        {"feedback_folder": "f", "processes": 2},
    ],
)
def test_settings_without_effect_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings(**values)


def test_the_page_of_the_api_has_the_forms_and_examples() -> None:
    document = create_gateway(GatewaySettings(), []).openapi()
    body = document["paths"]["/v1/feedback"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["examples"]) == {"clicks", "grades", "batch"}
    assert "$ref" not in json.dumps(body["schema"])
    assert "delete" in document["paths"]["/v1/feedback/{request_id}"]


async def test_a_folder_that_fails_is_told_to_those_whose_feedback_would_be_lost(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "f"
    folder.write_text("in the place of the folder")
    async with gateway(tmp_path, feedback_folder=folder) as clients:
        await answer(clients["one"], "lost")
        refused = await clients["one"].delete("/v1/feedback/lost")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        async with asyncio.timeout(60):
            while (sent := await clicks(clients["one"], "lost", 0)).status_code == 202:
                await asyncio.sleep(0.05)
        assert (sent.status_code, sent.json()["code"]) == (503, "overloaded")


async def test_what_the_disk_lost_may_be_sent_again(tmp_path: Path) -> None:
    """Without it, the same feedback counts as repeated, and later lines lack that of the answer."""
    folder = tmp_path / "f"
    folder.write_text("in the place of the folder")
    labels = {"kind": "events", "outcome": "failed"}
    before = metric_value("rerank_feedback_lines_total", **labels)
    async with gateway(tmp_path, feedback_folder=folder) as clients:
        await answer(clients["one"], "lost")
        assert (await clicks(clients["one"], "lost", 0)).json()["accepted"] == 1
        async with asyncio.timeout(60):
            while metric_value("rerank_feedback_lines_total", **labels) == before:
                await asyncio.sleep(0.02)
        folder.unlink()
        assert (await clicks(clients["one"], "lost", 0)).json()["accepted"] == 1
    assert len(lines(folder, "answer")) == len(lines(folder, "events")) == 1
