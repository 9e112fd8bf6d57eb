"""Gateways that share a Redis show by a fingerprint whether they share the secret of its keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.gateway.cache.opening import cache_secret
from service.gateway.settings import GatewaySettings
from service.observability.metrics import CACHE_SECRET_INFO

ONE, OTHER = "0123456789abcdef", "0123456789abcdeg"


@pytest.fixture(autouse=True)
def _cleared() -> Iterator[None]:
    CACHE_SECRET_INFO.clear()
    yield
    CACHE_SECRET_INFO.clear()


def exported(secret: str | None, url: str | None = "redis://h") -> list[str]:
    """The fingerprints that a gateway with these settings exports."""
    CACHE_SECRET_INFO.clear()
    given = {"redis_url": url, "cache_key_secret": secret}
    cache_secret(
        GatewaySettings(**{name: value for name, value in given.items() if value is not None})
    )
    (family,) = CACHE_SECRET_INFO.collect()
    return [sample.labels["fingerprint"] for sample in family.samples if sample.value == 1]


def test_secrets_are_told_apart_and_not_told() -> None:
    one, other = exported(ONE), exported(OTHER)
    assert one == exported(ONE) != other
    assert len(one[0]) == 8
    assert one[0] not in ONE.encode().hex()


def test_a_secret_that_nobody_shares_has_no_fingerprint() -> None:
    assert exported(None, url=None) == exported(ONE, url=None) == []
