"""The trace settings of gateway and worker.

Does not depend on OpenTelemetry. Its exporter reads further settings, such as headers and
certificates, from the `OTEL_EXPORTER_OTLP_*` variables of OpenTelemetry.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator
from pydantic_core import PydanticCustomError


class TracingSettings(BaseModel):
    """Destination and sampling of traces (`RERANK_OTLP_ENDPOINT`, ...)."""

    model_config = ConfigDict(frozen=True)

    otlp_endpoint: HttpUrl | None = Field(
        None,
        description=(
            "URL of a collector that accepts OTLP over HTTP, such as http://127.0.0.1:4318;"
            " default: no traces are sent."
        ),
    )
    trace_sample: float = Field(
        0.01,
        ge=0,
        le=1,
        description=(
            "Share of requests to trace, among those without a caller's own sampling decision."
        ),
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_bare(cls, value: HttpUrl | None) -> HttpUrl | None:
        if value and (value.username or value.password or value.query or value.fragment):
            raise PydanticCustomError(
                "url",
                "It has no name, password or query; headers go into OTEL_EXPORTER_OTLP_HEADERS",
            )
        return value
