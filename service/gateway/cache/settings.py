"""Settings of the score cache, a part of the gateway's: its sizes, its secret, and its Redis.

The module has names and bounds and opens no socket. Invariant: gateways that share a Redis have a
secret to share, and no error repeats a secret.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from service.gateway.cache.redis_url import BadAddress, RedisAddress, read_address

MAX_SECRET_BYTES = 4_096
MIN_SHARED_SECRET = 16


class CacheSettings(BaseModel):
    """All settings of the score cache."""

    cache_memory_bytes: int = Field(
        64 * 2**20,
        ge=0,
        le=2**40,
        description="Bytes of memory for the score cache in the gateway's process.",
    )
    cache_ttl_seconds: int = Field(
        604_800, ge=1, le=2**31 - 1, description="Seconds that Redis keeps a score."
    )
    redis_url: SecretStr | None = Field(
        None,
        max_length=8_192,
        description=(
            "URL of Redis: redis:// (rediss:// with TLS), "
            "redis+sentinel://h1:26379,h2:26379/mymaster/0 or "
            "redis+cluster://h1:6379,h2:6379; default: no Redis."
        ),
    )
    redis_password_file: Path | None = Field(
        None, description="File with the password of Redis; it is read for each new connection."
    )
    redis_password: SecretStr | None = Field(
        None,
        max_length=MAX_SECRET_BYTES,
        validate_default=True,
        description="Password of Redis, if it is not in the URL.",
    )
    redis_sentinel_password: SecretStr | None = Field(
        None, max_length=MAX_SECRET_BYTES, description="Password of the Sentinels."
    )
    redis_ca_file: Path | None = Field(
        None,
        description="CA certificates to verify Redis' certificate with; default: the system's.",
    )
    redis_cert_file: Path | None = Field(None, description="Client certificate for Redis.")
    redis_key_file: Path | None = Field(None, description="Private key of the client certificate.")
    redis_timeout_ms: int = Field(
        50, ge=1, le=10_000, description="Milliseconds that a request waits for Redis."
    )
    redis_connections: int = Field(
        16, ge=1, le=1_000, description="Maximum number of connections to each Redis node."
    )
    redis_key_prefix: str = Field(
        "gmr:",
        pattern=r"^[A-Za-z0-9._:-]{0,64}$",
        description="Prefix of the service's keys in Redis.",
    )
    cache_key_secret_file: Path | None = Field(
        None, description="File with the secret of the score cache."
    )
    cache_key_secret: SecretStr | None = Field(
        None,
        max_length=MAX_SECRET_BYTES,
        validate_default=True,
        description=(
            "Secret key for the HMAC of cache keys and values; default: random per process. "
            "Gateways that share a Redis share the secret."
        ),
    )

    @field_validator("redis_url")
    @classmethod
    def _check_address(cls, value: SecretStr | None) -> SecretStr | None:
        if not value:
            return None

        try:
            read_address(value.get_secret_value())
        except BadAddress as error:
            raise PydanticCustomError("redis_url", "{sentence}", {"sentence": str(error)}) from None
        return value

    @field_validator(
        "redis_ca_file",
        "redis_cert_file",
        "redis_key_file",
        "redis_password_file",
        "cache_key_secret_file",
    )
    @classmethod
    def _check_readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            _read_file(value)
        return value

    @field_validator("redis_password", "cache_key_secret", mode="before")
    @classmethod
    def _from_file(cls, value: object, info: ValidationInfo) -> object:
        file = info.data.get(f"{info.field_name}_file")
        if value is not None and file is not None:
            raise PydanticCustomError("twice", "This is set twice: here, and by its file")
        return _read_file(file).strip() if file is not None else value

    @field_validator("cache_key_secret")
    @classmethod
    def _check_shared_secret(
        cls, value: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        if info.data.get("redis_url") and len(value or "") < MIN_SHARED_SECRET:
            raise PydanticCustomError(
                "shared_secret",
                "A cache in Redis needs a secret of at least 16 characters, the same for every"
                " gateway that shares it",
            )
        return value

    def redis_address(self) -> RedisAddress | None:
        """The address of Redis; None where no URL is set."""
        return read_address(self.redis_url.get_secret_value()) if self.redis_url else None


def _read_file(path: Path) -> str:
    """The first `MAX_SECRET_BYTES` characters of a text file."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_SECRET_BYTES)
    except (OSError, UnicodeDecodeError):
        raise PydanticCustomError("file", "This file cannot be read") from None
