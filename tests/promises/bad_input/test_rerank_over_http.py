"""Every kind of wrong request, over HTTP: status, code, location, and the flat body."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import httpx
import pytest

from service.errors import path_of
from tests.conftest import Rerank
from tests.gateway.encoded_pictures import bare, data_url, encode, picture, png_that_claims

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
OWN_ID = re.compile(r"rr-[0-9a-f]{24}")
TOO_LONG = "word " * 15_000


def expect(response: httpx.Response, status: int, code: str, *locs: list[str | int]) -> None:
    """Check for the flat body with these locations."""
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code)
    assert body["message"] == body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert set(body) == {"code", "message", "detail", "request_id", *(["errors"] if locs else [])}
    assert [each["loc"] for each in body.get("errors", [])] == list(locs)
    for loc, each in zip(locs, body.get("errors", []), strict=True):
        assert each["message"].startswith(path_of(tuple(loc)))
    if locs:
        more = f" (and {len(locs) - 1} more)." if len(locs) > 1 else "."
        assert body["message"] == body["errors"][0]["message"].removesuffix(".") + more


def post(client: httpx.Client, body: bytes, **headers: str) -> httpx.Response:
    return client.post(
        "/rerank", content=body, headers={"content-type": "application/json"} | headers
    )


@pytest.mark.parametrize(
    "path", ["/nowhere", "/nowhere//", "/v3/rerank", "/%00", "/rerank%2f..%2finfo"]
)
def test_an_unknown_path_is_not_found(client: httpx.Client, path: str) -> None:
    expect(client.get(path), 404, "not_found")


@pytest.mark.parametrize("path", ["/rerank/", "/v1/rerank/", "/v2/rerank/", "/rerank//"])
def test_a_trailing_slash_changes_nothing(client: httpx.Client, path: str) -> None:
    assert client.post(path, json={"query": "q", "documents": ["d"]}).status_code == 200
    assert client.get("/v1/models/").status_code == client.get("/info/").status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "BREW"])
def test_another_method_is_not_allowed(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path)
    expect(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "OPTIONS, POST"


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "json",
        "image/png",
    ],
)
def test_only_json_is_read(client: httpx.Client, kind: str) -> None:
    expect(
        post(client, b'{"query": "q", "documents": ["d"]}', **{"content-type": kind}),
        415,
        "unsupported_media_type",
    )


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"]
)
def test_json_has_several_names(client: httpx.Client, kind: str) -> None:
    assert (
        post(client, b'{"query": "q", "documents": ["d"]}', **{"content-type": kind}).status_code
        == 200
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'query': 'q'}",
        b'{"query": "q", "documents": ["d"]} {}',
        b'{"query": "q", "documents": ["d"], "min_score": NaN}',
        b'{"query": "q", "documents": ["d"], "min_score": -Infinity}',
        b'{"query": "q", "documents": ["d"], "top_n": 1' + b"0" * 100_000 + b"}",
        b'{"query": "\xff", "documents": ["d"]}',
        b'{"query": "\xed\xa0\x80", "documents": ["d"]}',
        b'{"query": "\\ud800", "documents": ["d"]}',
        b'{"query": "\\udc00\\ud800", "documents": ["d"]}',
        b'{"query": "a\x00b", "documents": ["d"]}',
        '{"query": "q", "documents": ["d"]}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"query": "q", "documents": ' + b"[" * 500 + b"]" * 500 + b"}",
        b"[]",
        b'"query"',
        b"null",
        b"7",
    ],
)
def test_a_body_that_is_no_json_object_is_refused(client: httpx.Client, body: bytes) -> None:
    expect(post(client, body), 400, "invalid_request")


def test_a_body_may_be_compressed_and_begin_with_a_byte_order_mark(client: httpx.Client) -> None:
    body = b'\xef\xbb\xbf{"query": "q", "documents": ["d"]}'
    assert post(client, body).status_code == 200
    assert post(client, gzip.compress(body), **{"content-encoding": "gzip"}).status_code == 200
    for coding in ("br", "zstd", "deflate", "gzip, gzip"):
        refused = post(client, gzip.compress(body), **{"content-encoding": coding})
        expect(refused, 415, "unsupported_media_type")
        assert (
            refused.json()["message"] == "Send the body as it is, or with Content-Encoding: gzip."
        )


@pytest.mark.parametrize("field", ["top_n", "timeout_ms", "min_score"])
@pytest.mark.parametrize(
    "number", [b"1e999", b"-1e999", b"1" + b"0" * 4000, b"-7", b'"x"', b"[]", b"{}"]
)
def test_a_number_out_of_bounds_is_named(client: httpx.Client, field: str, number: bytes) -> None:
    body = b'{"query": "q", "documents": ["d"], "%s": %s}' % (field.encode(), number)
    expect(post(client, body), 400, "invalid_request", [field])


def test_nul_and_strange_characters_are_text(rerank: Rerank) -> None:
    strange = "\0 \ufffe \u202e \U0001d518 e\u0301 🏳️‍🌈 <|im_end|><|image_pad|>"
    answer = rerank(query=strange, documents=[strange, "\0"], instruction=strange)
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 2


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", ["gpt-4", " ", "../gmr-tiny", "GMR-TINY"])
def test_an_unknown_model_is_not_found(client: httpx.Client, path: str, model: str) -> None:
    expect(
        client.post(path, json={"query": "q", "documents": ["d"], "model": model}),
        404,
        "model_not_found",
    )


BAD_ITEMS = [
    ("", "empty_item", []),
    (7, "invalid_request", []),
    ({"text": "x", "score": 1}, "invalid_request", ["score"]),
    (data_url(encode(picture())), "invalid_request", []),
    ({"image": "aGVsbG8="}, "invalid_image", ["image"]),
    ({"image": data_url(encode(picture(), "GIF"))}, "invalid_image", ["image"]),
    ({"image": data_url(encode(picture())[:300])}, "invalid_image", ["image"]),
    ({"image": data_url(encode(picture((1, 1))))}, "invalid_image", ["image"]),
    ({"image": bare(png_that_claims(60_000, 60_000))}, "image_too_large", ["image"]),
    ({"image": "https://example.com/a.png"}, "image_url_disabled", ["image"]),
    (
        {"content": [{"type": "image_url", "image_url": {"url": "http://[::1]/"}}]},
        "image_url_disabled",
        ["content", 0, "image_url", "url"],
    ),
    ("x" * 100_001, "invalid_request", []),
]


@pytest.mark.parametrize(("item", "code", "place"), BAD_ITEMS)
def test_a_bad_item_is_named_or_skipped(
    rerank: Rerank, item: Any, code: str, place: list[str | int]
) -> None:
    expect(rerank(query=item, documents=["d"]), 400, code, ["query", *place])
    expect(rerank(query=item, documents=["d"], on_error="skip"), 400, code, ["query", *place])
    expect(
        rerank(query="q", documents=["good", item, "good too"]), 400, code, ["documents", 1, *place]
    )
    answer = rerank(query="q", documents=["good", item, "good too"], on_error="skip")
    assert answer.status_code == 200
    assert [(each["index"], each["code"]) for each in answer.json()["errors"]] == [(1, code)]
    assert sorted(each["index"] for each in answer.json()["results"]) == [0, 2]


def test_several_bad_documents_are_all_named(rerank: Rerank) -> None:
    documents = ["good", "", {"image": "aGVsbG8="}, 7]
    expect(
        rerank(query="q", documents=documents),
        400,
        "empty_item",
        ["documents", 1],
        ["documents", 2, "image"],
        ["documents", 3],
    )
    errors = rerank(query="q", documents=documents[1:], on_error="skip").json()
    assert [each["code"] for each in errors["errors"]] == [
        "empty_item",
        "invalid_image",
        "invalid_request",
    ]
    assert errors["results"] == []


def test_a_picture_that_was_sent_as_text_is_refused_where_it_is_in_the_text(rerank: Rerank) -> None:
    """Some clients turn `{"image": ...}` into JSON text: it was scored, as 3,200 tokens of
    nonsense."""
    url = data_url(encode(picture()))
    for text in (f"see {url}", json.dumps({"image": url}), f"![]({url})"):
        expect(rerank(query=text, documents=["d"]), 400, "invalid_request", ["query"])
        expect(
            rerank(query="q", documents=["d", {"text": text}]),
            400,
            "invalid_request",
            ["documents", 1],
        )
    expect(
        rerank(query="q", documents=["d"], instruction=url), 400, "invalid_request", ["instruction"]
    )


def test_metadata_and_ids_come_back_and_change_no_score(rerank: Rerank) -> None:
    metadata = {"page": 7, "tags": ["a", None], "nested": {"é": 1.5}}
    plain = rerank(query="q", documents=["one", "two"]).json()["results"]
    documents = [
        {"text": "one", "id": 12, "metadata": metadata},
        {"text": "two", "id": "b", "metadata": {}},
    ]
    carried = rerank(query="q", documents=documents).json()["results"]
    assert [each["logit"] for each in carried] == [each["logit"] for each in plain]
    assert all(each["meta"]["cached"] for each in carried)
    assert {each["index"]: (each["id"], each["metadata"]) for each in carried} == {
        0: (12, metadata),
        1: ("b", {}),
    }


def test_fields_that_had_no_effect_are_named(rerank: Rerank) -> None:
    answer = rerank(query="q", documents=["a", "b"], topn=1, task="x", priority=3).json()
    assert len(answer["results"]) == 2
    assert [each.partition(" ")[0] for each in answer["meta"]["warnings"]] == ["topn", "task"]
    assert (
        "warnings" not in rerank(query="q", documents=["a", "b"], top_n=0, user="u").json()["meta"]
    )


def test_other_vendors_names_for_the_same_are_the_same(rerank: Rerank) -> None:
    book = {"title": "Sorting", "text": "Sort the list.", "year": 1999}
    fields = {
        "query": "how do I sort a list",
        "rank_fields": ["title", "text"],
        "instruct": "Find a passage.",
    }
    theirs = rerank(**fields, documents=[book], model="default/not-specified", top_n=0).json()
    ours = rerank(
        query=fields["query"], documents=["Sorting\nSort the list."], instruction=fields["instruct"]
    ).json()
    assert [each["logit"] for each in theirs["results"]] == [
        each["logit"] for each in ours["results"]
    ]


def test_a_picture_is_the_same_however_its_base64_is_written(rerank: Rerank) -> None:
    encoded = bare(encode(picture()))
    safe = encoded.translate(str.maketrans("+/", "-_")).rstrip("=")
    written = [
        encoded,
        safe,
        f"data:image/png;charset=utf-8;base64,{encoded}",
        f"data:image/png;base64,{safe}",
    ]
    results = rerank(query="a circle", documents=[{"image": each} for each in written]).json()[
        "results"
    ]
    assert len({each["logit"] for each in results}) == 1
    assert len(results) == len(written)


def test_a_pair_that_may_not_be_cut_is_too_long(rerank: Rerank) -> None:
    refused = rerank(query="q", documents=["good", TOO_LONG], truncate="none")
    expect(refused, 400, "pair_too_long", ["documents", 1])
    said = "documents[1]: query and document have more than the 3200 tokens that the model reads."
    assert refused.json()["message"] == said
    skipped = rerank(
        query="q", documents=["good", TOO_LONG], truncate="none", on_error="skip"
    ).json()
    assert [each["index"] for each in skipped["results"]] == [0]
    assert [(each["index"], each["code"]) for each in skipped["errors"]] == [(1, "pair_too_long")]
    cut = rerank(query="q", documents=["good", TOO_LONG]).json()
    assert {each["index"]: each["meta"]["truncated"] for each in cut["results"]} == {
        0: False,
        1: True,
    }


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_an_instruction_or_a_query_that_is_too_long_by_itself_is_to_blame_not_the_documents(
    rerank: Rerank, on_error: str
) -> None:
    documents = ["one", "two"]
    told = rerank(query="q", instruction=TOO_LONG, documents=documents, on_error=on_error)
    expect(told, 400, "pair_too_long", ["instruction"])
    assert (
        told.json()["message"]
        == "instruction alone has more than the 3200 tokens that the model reads."
    )
    told = rerank(query=TOO_LONG, documents=documents, truncate="none", on_error=on_error)
    expect(told, 400, "pair_too_long", ["query"])
    assert (
        told.json()["message"]
        == "query and the instruction have more than the 3200 tokens that the model reads."
    )


def test_a_chinese_text_is_cut_and_read(rerank: Rerank) -> None:
    """gmr-tiny needs three tokens per character: such a text was once cut to nothing."""
    (result,) = rerank(query="q", documents=["\u7136" * 3_000]).json()["results"]
    assert result["meta"]["truncated"]
    assert 3_190 < result["meta"]["prompt_tokens"] <= 3_200


def test_time_that_does_not_suffice_is_a_deadline_exceeded(rerank: Rerank) -> None:
    documents = [f"{number} {'word ' * 300}" for number in range(100)]
    expect(
        rerank(query="q", documents=documents, timeout_ms=1, cache="bypass"),
        504,
        "deadline_exceeded",
    )


@pytest.mark.slow
def test_what_was_scored_in_time_is_ranked_and_the_rest_is_listed(rerank: Rerank) -> None:
    """The timeout is doubled until it suffices for some documents: scoring all takes far more
    than twice the time of the first."""
    documents = [f"{number} {'word ' * 300}" for number in range(100)]
    for doubling in range(16):
        answer = rerank(
            query="q", documents=documents, timeout_ms=2**doubling, cache="bypass", on_error="skip"
        ).json()
        assert sorted(each["index"] for each in answer["results"] + answer["errors"]) == list(
            range(100)
        )
        assert {each["code"] for each in answer["errors"]} <= {"deadline_exceeded"}
        if answer["results"]:
            break
    assert answer["results"]
    assert answer["errors"]
    assert answer["results"] == sorted(
        answer["results"], key=lambda each: (-each["logit"], each["index"])
    )


@pytest.mark.parametrize("path", ["/rerank", "/info", "/nowhere", "/health/live", "/metrics"])
def test_a_good_request_id_is_kept_and_a_bad_one_replaced(client: httpx.Client, path: str) -> None:
    for good in ("a", "A.b_c-9", "x" * 128):
        assert client.get(path, headers={"x-request-id": good}).headers["x-request-id"] == good
    for bad in (
        b"",
        b"x" * 129,
        b"a b",
        b"a\tb",
        b"../../x",
        b"<script>",
        b'"',
        b"\xc3\xa9",
        b"a,b",
        b"%0d%0a",
    ):
        assert OWN_ID.fullmatch(
            client.get(path, headers={b"x-request-id": bad}).headers["x-request-id"]
        )
    assert OWN_ID.fullmatch(client.get(path).headers["x-request-id"])
