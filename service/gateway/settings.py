"""The gateway's settings: read once from the environment (`RERANK_*`), then passed down as plain
values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, HttpUrl, SecretStr, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.api import Limits
from service.gateway.cache.settings import CacheSettings
from service.gateway.fleet.discovery import dns_name
from service.gateway.media.fetching import FetchRules
from service.gateway.media.urls import is_host_rule
from service.observability.settings import Tracing
from service.web.settings import Serving

MAX_MODEL_NAME = 256


class GatewaySettings(Limits, CacheSettings, Serving, Tracing, BaseSettings):
    """Every knob of the gateway; the limits of a request are among them (`RERANK_MAX_DOCUMENTS`,
    ...)."""

    model_config = SettingsConfigDict(env_prefix="RERANK_", frozen=True, extra="ignore")

    workers: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "URLs of the workers, comma-separated; dns://host:port is a worker at each of the"
            " host's addresses."
        ),
    )
    worker_dns_ms: int = Field(
        5_000, ge=10, le=600_000, description="How often the hosts of dns:// are looked up."
    )
    worker_look_ms: int = Field(
        1_000,
        ge=10,
        le=60_000,
        description="How often a ready worker is asked whether it is still.",
    )
    worker_look_timeout_ms: int = Field(
        2_000, ge=10, le=60_000, description="How long a worker has to answer that."
    )
    worker_looks_missed: int = Field(
        3, ge=1, le=100, description="After so many missed answers in a row a worker hangs."
    )
    hedge_ms: int = Field(
        0,
        ge=0,
        le=60_000,
        description="Ask an idle worker too after so long without a reply; 0: never.",
    )
    default_timeout_ms: int = Field(
        60_000, ge=1, le=600_000, description="Deadline of a request that names none."
    )
    capacity_tokens: int | None = Field(
        None,
        ge=1,
        le=2**40,
        description=(
            "Estimated prompt tokens admitted at once; default: about a second's work, as measured."
        ),
    )
    max_waiting: int = Field(
        256, ge=0, le=100_000, description="Requests that may wait for capacity."
    )
    max_wait_ms: int = Field(
        5_000, ge=0, le=600_000, description="How long a request may wait for capacity."
    )
    max_bodies_bytes: int = Field(
        256 * 2**20,
        ge=1_024,
        le=2**40,
        description="Memory of request bodies held at once, as sent or as read, whichever is more.",
    )

    on_error: Literal["fail", "skip"] = Field(
        "fail",
        description=(
            "Whether one bad document fails its request, or is listed in errors, where the request"
            " does not say."
        ),
    )
    model_aliases: Annotated[dict[str, str], NoDecode] = Field(
        {},
        max_length=64,
        description="Other names for served models, as alias=model, comma-separated.",
    )

    image_urls: bool = Field(
        False, description="Whether https:// image URLs are fetched, from public hosts alone."
    )
    image_url_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=1_000,
        description=(
            "Hosts they may name, comma-separated; .example.com is all names under it; none: any."
        ),
    )
    image_url_timeout_ms: int = Field(
        5_000, ge=10, le=60_000, description="How long one image URL may take."
    )
    image_url_fetches: int = Field(32, ge=1, le=1_024, description="Images fetched at once.")
    max_image_urls: int = Field(
        64, ge=1, le=10_000, description="Different image URLs of one request."
    )
    image_decode_ms: int = Field(
        10_000, ge=100, le=60_000, description="How long one image may take to decode."
    )
    request_decode_ms: int = Field(
        30_000,
        ge=100,
        le=3_600_000,
        description="CPU time that all images of a request may take to decode together.",
    )

    api_keys: SecretStr | None = Field(
        None, description="API keys, comma-separated; they have no names, tenants or quotas."
    )
    api_keys_file: Path | None = Field(
        None, description="JSON file of hashed API keys (`gmr keys`), read again when it changes."
    )
    metrics_public: bool = Field(
        False, description="Whether /metrics asks for no key where the other routes do."
    )
    cache_shared: bool = Field(
        False,
        description="Whether tenants share cached scores; they can then tell what others asked.",
    )

    routing: Literal["affinity", "least_loaded"] = Field(
        "affinity",
        description=(
            "Whether equal queries go to one worker, for its caches, unless it is much busier than"
            " others."
        ),
    )
    split: Literal["auto", "always", "never"] = Field(
        "auto",
        description=(
            "When a request is split over idle workers: where that is faster, wherever there are"
            " several, never."
        ),
    )
    trace_trust: bool = Field(
        True,
        description=(
            "Whether a traceparent with a request decides that it is traced, and where; else it is"
            " only named."
        ),
    )
    access_log: float = Field(
        1.0,
        ge=0,
        le=1,
        description=(
            "Share of requests that are logged; those that the service failed (5xx) always are."
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much is logged."
    )

    @field_validator("workers", "image_url_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("model_aliases", mode="before")
    @classmethod
    def _split_aliases(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        aliases = {alias.strip(): model.strip() for alias, _, model in pairs}
        named = [*aliases, *aliases.values()]
        if len(aliases) < len(pairs) or not all(1 <= len(name) <= MAX_MODEL_NAME for name in named):
            raise PydanticCustomError(
                "aliases", "Aliases are given as alias=model, comma-separated, each alias once"
            )
        return aliases

    @field_validator("workers")
    @classmethod
    def _are_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            TypeAdapter(list[HttpUrl]).validate_python(
                [each for each in value if not dns_name(each)]
            )
        except ValidationError:
            sentence = (
                "A worker's address is a URL such as http://127.0.0.1:8001, or dns://host:port"
            )
            raise PydanticCustomError("url", sentence) from None
        return value

    @field_validator("image_url_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(is_host_rule, value)):
            raise PydanticCustomError(
                "host",
                "An image host is a name such as img.example.com, or .example.com for all under it",
            )
        return value

    def fetch_rules(self) -> FetchRules | None:
        """How image URLs are fetched; None: they are not."""
        if not self.image_urls:
            return None
        return FetchRules(
            hosts=self.image_url_hosts,
            seconds=self.image_url_timeout_ms / 1000,
            at_once=self.image_url_fetches,
            max_urls=self.max_image_urls,
            max_image_bytes=self.max_image_bytes,
            max_request_bytes=self.max_body_bytes,
        )

    def limits(self) -> Limits:
        """The limits alone, as `/info` shows them."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})
