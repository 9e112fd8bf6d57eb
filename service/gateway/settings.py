"""The gateway's settings, read once from the environment (`RERANK_*`) and passed on as plain
values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, HttpUrl, SecretStr, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.gateway.admission.wait_bounds import WaitBounds
from service.gateway.cascades.settings import CascadeSettings
from service.gateway.feedback.settings import FeedbackSettings, expect_shared_records
from service.gateway.fleet.discovery import dns_name
from service.gateway.fleet.settings import FleetSettings
from service.gateway.images.settings import ImageStoreSettings
from service.gateway.media.urls import FetchRules, is_host_rule
from service.gateway.stream.bounds import StreamBounds
from service.limits import Limits
from service.observability.settings import TracingSettings
from service.web.settings import BrowserSettings, ServerSettings, split_list

MAX_MODEL_NAME = 256


class GatewaySettings(
    Limits,
    FleetSettings,
    ImageStoreSettings,
    CascadeSettings,
    FeedbackSettings,
    ServerSettings,
    BrowserSettings,
    TracingSettings,
    BaseSettings,
):
    """All settings of the gateway, the limits of a request among them."""

    model_config = SettingsConfigDict(env_prefix="RERANK_", frozen=True, extra="ignore")

    processes: int = Field(
        1,
        ge=1,
        le=64,
        description=(
            "Processes of `gmr gateway` that serve on its port; bounds of memory and of work under "
            "way are for all of them together."
        ),
    )
    root_path: str = Field(
        "",
        pattern="^(/[A-Za-z0-9._~-]+)*$",
        max_length=256,
        description=(
            "Path prefix that a proxy leaves in the requests that it sends, such as /search; "
            "requests without it are served, too."
        ),
    )
    workers: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "URLs of the workers, comma-separated; dns://host:port stands for one worker at "
            "each address of the host."
        ),
    )
    default_timeout_ms: int = Field(
        60_000,
        ge=1,
        le=600_000,
        description="Deadline, in milliseconds, of a request that sets none.",
    )
    capacity_tokens: int | None = Field(
        None,
        ge=1,
        le=2**40,
        description=(
            "Estimated prompt tokens admitted at once; default: about one second of work at "
            "the measured throughput."
        ),
    )
    max_queued_requests: int = Field(
        256, ge=0, le=100_000, description="Maximum number of requests that wait for capacity."
    )
    max_queue_ms: int = Field(
        5_000,
        ge=0,
        le=600_000,
        description="Maximum time, in milliseconds, that a request waits for capacity.",
    )
    max_streams: int = Field(
        64,
        ge=0,
        le=10_000,
        description="Maximum number of open streams of /v1/rerank/stream; 0: none is accepted.",
    )
    stream_lines: int = Field(
        32,
        ge=1,
        le=10_000,
        description="Maximum number of lines of a stream that are read and not answered yet.",
    )
    stream_idle_ms: int = Field(
        300_000,
        ge=100,
        le=86_400_000,
        description=(
            "Milliseconds without a line after which a stream is ended; also the deadline of a"
            " line that sets none, from the moment it is read."
        ),
    )
    max_bodies_bytes: int = Field(
        256 * 2**20,
        ge=1_024,
        le=2**40,
        description=(
            "Bytes of memory for all request bodies held at once; a body counts as sent or as"
            " parsed, whichever is more."
        ),
    )

    on_error: Literal["fail", "skip"] = Field(
        "fail",
        description=(
            "Default for requests that do not set on_error: fail the whole request because of"
            " one bad document, or skip the document and list it in errors."
        ),
    )
    model_aliases: Annotated[dict[str, str], NoDecode] = Field(
        {},
        max_length=64,
        description="Other names for served models, as alias=model, comma-separated.",
    )

    image_urls: bool = Field(
        False, description="Fetch images from https:// URLs; only public hosts are allowed."
    )
    image_url_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=1_000,
        description=(
            "Hosts that image URLs may name, comma-separated; .example.com allows every name "
            "under it; default: any public host."
        ),
    )
    image_url_timeout_ms: int = Field(
        5_000, ge=10, le=60_000, description="Milliseconds allowed for fetching one image."
    )
    image_url_fetches: int = Field(
        32, ge=1, le=1_024, description="Maximum number of images fetched at the same time."
    )
    max_image_urls: int = Field(
        64, ge=1, le=10_000, description="Maximum number of different image URLs in a request."
    )
    image_decode_ms: int = Field(
        10_000, ge=100, le=60_000, description="Milliseconds allowed for decoding one image."
    )
    request_decode_ms: int = Field(
        30_000,
        ge=100,
        le=3_600_000,
        description="Milliseconds of CPU time allowed for decoding all images of a request.",
    )

    api_keys: SecretStr | None = Field(
        None, description="API keys, comma-separated, without names, tenants or quotas."
    )
    api_keys_file: Path | None = Field(
        None,
        description=(
            "JSON file of hashed API keys, as `gmr keys` writes it; it is read again when it "
            "changes."
        ),
    )
    metrics_public: bool = Field(
        False, description="Serve /metrics without a key where the other routes require one."
    )
    cache_shared: bool = Field(
        False,
        description=(
            "Share cached scores and stored images between tenants; a tenant can then tell that "
            "another asked the same, or put the same image."
        ),
    )

    trace_trust: bool = Field(
        True,
        description=(
            "Let a request's traceparent header decide which trace it belongs to and whether "
            "it is sampled; otherwise it is only linked."
        ),
    )
    log_sample: float = Field(
        1.0,
        ge=0,
        le=1,
        description=(
            "Share of requests to log; requests that failed with a 5xx status are always logged."
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of log lines."
    )

    _split = field_validator("workers", "image_url_hosts", mode="before")(split_list)

    @field_validator("model_aliases", mode="before")
    @classmethod
    def _split_aliases(cls, value: object) -> object:
        """Split `alias=model,alias=model`, as the environment has it."""
        if not isinstance(value, str):
            return value

        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        aliases = {alias.strip(): model.strip() for alias, _, model in pairs}
        lengths = [len(name) for name in (*aliases, *aliases.values())]
        if len(aliases) < len(pairs) or not all(1 <= each <= MAX_MODEL_NAME for each in lengths):
            raise PydanticCustomError(
                "aliases", "Aliases are given as alias=model, comma-separated, each alias once"
            )
        return aliases

    _shares_feedback = field_validator("processes")(expect_shared_records)

    @field_validator("workers")
    @classmethod
    def _are_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        urls = [url for url in value if not dns_name(url)]
        try:
            TypeAdapter(list[HttpUrl]).validate_python(urls)
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
        """The rules for fetching image URLs; None where they are not fetched."""
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

    def stream_bounds(self) -> StreamBounds:
        """The bounds of one stream."""
        return StreamBounds(
            line_bytes=self.max_body_bytes,
            lines_at_once=self.stream_lines,
            idle_seconds=self.stream_idle_ms / 1000,
            drain_seconds=self.draining_seconds,
        )

    def wait_bounds(self) -> WaitBounds:
        """The bounds of requests that wait for a worker."""
        return WaitBounds(
            self.wait_for_worker_seconds,
            self.max_waiting_for_worker,
            self.max_waiting_for_worker_bytes,
        )

    def limits(self) -> Limits:
        """The limits of a request alone, as `/info` shows them."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})
