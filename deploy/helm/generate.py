"""Generates values.schema.json and README.md's tables from values.yaml and the settings classes.

    python deploy/helm/generate.py

The type of a value is that of its default. The comment above it is its description, and a line
`# @ {...}` of the comment has further constraints (JSON schema, draft 7). A mapping without a
comment is a group of values. Does not depend on templates. Invariant: a value without a
description, or a number without bounds, is an error; the schema is closed, so values that are not
in values.yaml are refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings

from service.gateway.settings import GatewaySettings
from service.worker.settings import WorkerSettings

CHART = Path(__file__).parent
README, SCHEMA, VALUES = CHART / "README.md", CHART / "values.schema.json", CHART / "values.yaml"
BEGIN, END = "<!-- values: generated -->", "<!-- /values -->"

GATEWAY_SETS = {
    "workers": "worker.enabled, gateway.workers",
    "cascades": "gateway.cascades",
    "api_keys": "auth",
    "api_keys_file": "auth",
    "cache_key_secret": "cacheSecret",
    "cache_key_secret_file": "cacheSecret",
    "redis_url": "redis.enabled, externalRedis.url",
    "redis_password": "externalRedis.existingSecret",
    "redis_password_file": "externalRedis.existingSecret",
    "redis_sentinel_password": "externalRedis.sentinelSecretKey",
    "redis_ca_file": "externalRedis.tlsSecret",
    "redis_cert_file": "externalRedis.tlsClientCertificate",
    "redis_key_file": "externalRedis.tlsClientCertificate",
    "images_folder": "gateway.images.diskMiB",
    "images_disk_bytes": "gateway.images.diskMiB",
    "feedback_folder": "gateway.feedback.existingClaim",
    "feedback_disk_bytes": "gateway.feedback.diskMiB",
}
WORKER_SETS = {
    "model": "model",
    "model_revision": "model.hub.revision",
    "model_family": "model.family",
    "model_cache": "model.download",
    "processes": "worker.workersPerGpu",
}
"""Settings that the chart sets itself, with the values that they are set from."""

_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "seq": "array",
    "map": "object",
}
_ENGINE = {
    "^RERANK_ENGINE_[A-Z0-9_]{1,100}$": {
        "type": ["string", "number", "boolean"],
        "maxLength": 65_536,
    }
}
_KEYWORDS = (
    "type",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
)
"""Keywords of a setting's JSON schema that the chart's schema repeats."""
_MAX_ITEMS = 256
_STANDARD: dict[str, dict[str, Any]] = {
    "string": {"maxLength": 2_048},
    "array": {"maxItems": _MAX_ITEMS, "items": {"type": "object"}},
    "object": {"maxProperties": _MAX_ITEMS},
}


class ValuesUnusable(Exception):
    """An error in values.yaml, with its line."""


@dataclass(frozen=True)
class Value:
    """A value, or a group of values if it has `parts`."""

    name: str
    default: Any
    schema: dict[str, Any]
    parts: tuple[Value, ...] = ()


def read_values(text: str) -> tuple[Value, ...]:
    """The values in the text of values.yaml; raises `ValuesUnusable`."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ValuesUnusable("line 1: there are no values.")
    return tuple(_parts(root, text.splitlines(), ""))


def _parts(group: yaml.MappingNode, lines: list[str], path: str) -> Iterator[Value]:
    for key, node in group.value:
        name = f"{path}.{key.value}" if path else key.value
        description, bounds = _comment(lines, key.start_mark.line, name)
        default = yaml.SafeLoader("").construct_object(node, deep=True)

        if isinstance(node, yaml.MappingNode) and not (node.flow_style or description or bounds):
            parts = tuple(_parts(node, lines, name))
            yield Value(name, default, _group(parts), parts)
        elif not description:
            raise ValuesUnusable(f"line {key.start_mark.line + 1}: {name} has no comment.")
        else:
            yield Value(name, default, _schema(name, node, bounds) | {"description": description})


def _comment(lines: list[str], line: int, name: str) -> tuple[str, dict[str, Any]]:
    """The description and the constraints in the comment above a line."""
    sentences: list[str] = []
    bounds: dict[str, Any] = {}
    while line and lines[line - 1].strip().startswith("# "):
        line -= 1
        text = lines[line].strip().removeprefix("# ")
        if text.startswith("@ "):
            bounds = yaml.safe_load(text.removeprefix("@ "))
        else:
            sentences.insert(0, text)
    return " ".join(sentences), bounds


def _schema(name: str, node: yaml.Node, bounds: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in bounds:
        return {"allOf": [bounds]}

    kind = _TYPES[node.tag.rpartition(":")[2]]
    standard = _STANDARD.get(kind, {})
    if kind in ("integer", "number") and not {"minimum", "maximum"} <= bounds.keys():
        raise ValuesUnusable(f"line {node.start_mark.line + 1}: {name} is a number without bounds.")
    return {"type": kind} | standard | bounds


def _group(parts: tuple[Value, ...]) -> dict[str, Any]:
    properties = {part.name.rpartition(".")[2]: part.schema for part in parts}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def settings_schema(
    kind: type[BaseSettings], chart_sets: dict[str, str], patterns: dict[str, Any]
) -> dict[str, Any]:
    """The schema of the settings that the chart does not set, as environment variables."""
    fields = kind.model_json_schema()["properties"]
    properties = {}
    for name in sorted(fields.keys() - chart_sets.keys()):
        properties[f"RERANK_{name.upper()}"] = _setting(fields[name])

    schema = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "maxProperties": _MAX_ITEMS,
    }
    if patterns:
        schema["patternProperties"] = patterns
    return schema


def _setting(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of one setting. Optional settings can be left out; lists are comma-separated."""
    choices = [choice for choice in field.get("anyOf", ()) if choice["type"] != "null"]
    kind = choices[0] if choices else field
    schema = {key: kind[key] for key in _KEYWORDS if key in kind}
    schema["description"] = field["description"]

    if kind["type"] in ("array", "object"):
        schema["type"] = "string"
    if schema["type"] == "string" and "enum" not in schema:
        schema = {"maxLength": 65_536} | schema
    return schema


def schema_of(values: tuple[Value, ...]) -> str:
    """The text of values.schema.json."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of gmr-rerank",
    } | _group(values)
    # a parent chart's values are there, too
    schema["properties"]["global"]["additionalProperties"] = True

    schema["definitions"] = {
        "gatewaySettings": settings_schema(GatewaySettings, GATEWAY_SETS, {}),
        "workerSettings": settings_schema(WorkerSettings, WORKER_SETS, _ENGINE),
    }
    return json.dumps(schema, indent=2) + "\n"


def tables(values: tuple[Value, ...]) -> str:
    """The tables of README.md, one per group."""
    single = Value("", None, {}, tuple(value for value in values if not value.parts))
    lines: list[str] = []
    for group in (single, *(value for value in values if value.parts)):
        lines += [*_title(group), *_rows(group), ""]
    return "\n".join(lines)


def _title(group: Value) -> Iterator[str]:
    yield f"### {group.name or 'The release'}"
    yield ""
    yield "| value | default | description |"
    yield "|---|---|---|"


def _rows(group: Value) -> Iterator[str]:
    for value in group.parts:
        if value.parts:
            yield from _rows(value)
        else:
            default = "" if value.default in ("", [], {}) else f"`{_plain(value.default)}`"
            yield f"| `{value.name}` | {default} | {value.schema['description']} |"


def _plain(default: Any) -> str:
    text = default if isinstance(default, str) else json.dumps(default)
    return text if len(text) <= 80 else "see values.yaml"


def readme_of(values: tuple[Value, ...], text: str) -> str:
    """The text of README.md with new tables."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables(values)}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write both files."""
    try:
        values = read_values(VALUES.read_text(encoding="utf-8"))
    except ValuesUnusable as error:
        sys.exit(f"{VALUES.name}: {error}")
    SCHEMA.write_text(schema_of(values), encoding="utf-8")
    README.write_text(readme_of(values, README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
