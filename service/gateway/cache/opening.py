"""Opens the Redis that the settings describe, the tier of scores in it, and the secret of its keys.

The module depends on settings alone. Invariant: every client of a gateway has the same
address, credentials and TLS, and connections of its own.
"""

from __future__ import annotations

import hmac
import secrets

from service.gateway.cache.encoding import ScoreCodec
from service.gateway.cache.redis_client import Client, TlsFiles, export_readability, open_client
from service.gateway.cache.redis_tier import RedisTier
from service.gateway.cache.settings import CacheSettings
from service.observability.metrics import CACHE_SECRET_INFO

_FINGERPRINTED = b"fingerprint of the secret of the score cache"
_FINGERPRINT_BYTES = 4
"""Enough to tell a few secrets apart, and too few to tell anything of them."""


def cache_secret(settings: CacheSettings) -> bytes:
    """The secret of the settings, or a random one, which other gateways do not share.

    Where gateways share a Redis, a fingerprint is exported, by which two secrets are told apart.
    """
    given = settings.cache_key_secret
    secret = given.get_secret_value().encode() if given else secrets.token_bytes(32)
    if settings.redis_address():
        digest = hmac.digest(secret, _FINGERPRINTED, "sha256")
        CACHE_SECRET_INFO.labels(digest[:_FINGERPRINT_BYTES].hex()).set(1)
    return secret


def open_redis(settings: CacheSettings, *, connections: int) -> Client | None:
    """A client with up to `connections` to each node; None where no Redis is configured."""
    address = settings.redis_address()
    if not address:
        return None

    tls = TlsFiles(settings.redis_ca_file, settings.redis_cert_file, settings.redis_key_file)
    export_readability(tls, settings.redis_password_file)
    password, for_sentinels = settings.redis_password, settings.redis_sentinel_password
    return open_client(
        address,
        password=(password.get_secret_value() if password else None) or None,
        password_file=settings.redis_password_file,
        sentinel_password=(for_sentinels.get_secret_value() if for_sentinels else None) or None,
        tls=tls,
        connections=connections,
    )


def open_redis_tiers(settings: CacheSettings, secret: bytes) -> list[RedisTier]:
    """The tier of scores that several gateways share; none where no Redis is configured."""
    client = open_redis(settings, connections=settings.redis_connections)
    if client is None:
        return []

    tier = RedisTier(
        client,
        ScoreCodec(secret),
        prefix=settings.redis_key_prefix,
        ttl_seconds=settings.cache_ttl_seconds,
        budget_seconds=settings.redis_timeout_ms / 1000,
        connections=settings.redis_connections,
    )
    return [tier]
