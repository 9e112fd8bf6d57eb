"""Requests generated from the service's OpenAPI page, valid and invalid: no answer is a 5xx, and
each conforms to the page."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from service.errors import BY_CODE
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from tests.conftest import CALM
from tests.processes import Gmr

pytestmark = pytest.mark.slow

EXAMPLES = 15
CHECKS = (not_a_server_error, content_type_conformance, response_schema_conformance)
FLAT = {"code", "message", "detail", "request_id"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Gmr("serve", log=tmp_path_factory.mktemp("fuzz") / "log", **CALM) as process:
        yield process.await_ready().url
        assert "Traceback" not in process.said()


@schemathesis.serializer("application/x-ndjson")
def lines(_: object, value: object) -> bytes:
    """A stream's body: the generated text, or another value as one line of JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


described = schemathesis.openapi.from_dict(create_gateway(GatewaySettings(), []).openapi())


@described.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_described_and_none_is_a_failure_of_ours(case: Case, url: str) -> None:
    answer = case.call(base_url=url)
    checks = list(CHECKS)
    if answer.status_code == httpx.codes.GATEWAY_TIMEOUT and _sets_a_deadline(case):
        checks.remove(not_a_server_error)  # the request itself allowed too little time
    case.validate_response(answer, checks=checks)

    if answer.status_code >= 400:
        body = answer.json()
        assert body.keys() >= FLAT  # some dialects have their vendor's keys, too
        assert answer.status_code == BY_CODE[body["code"]].status
        assert body["message"] == body["detail"]
        assert answer.headers["x-request-id"] == [body["request_id"]]


def _sets_a_deadline(case: Case) -> bool:
    """True if a body has a deadline, in an object of it too."""
    body = case.body
    if not isinstance(body, dict):
        return False
    objects = [body, *(value for value in body.values() if isinstance(value, dict))]
    return any(each.get("timeout_ms") is not None for each in objects)
