"""The chart's values: the schema and the tables agree with values.yaml and the settings, and no
setting is missing or unused."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from types import ModuleType
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from service.gateway.settings import GatewaySettings
from service.worker.settings import WorkerSettings
from tests.deploy.chart import GPU, HUB, complaint, container, environment, merged, objects
from tests.deploy.helm import CHART, ROOT


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", CHART / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


generate = _generate()
VALUES = generate.read_values((CHART / "values.yaml").read_text())
EXTERNAL = {
    "redis": {"enabled": False},
    "externalRedis": {
        "url": "redis+sentinel://gmr@one:26379,two:26379/scores/0",
        "existingSecret": "redis",
        "sentinelSecretKey": "sentinel",
        "tlsSecret": "tls",
        "tlsClientCertificate": True,
    },
}
PARTS = [
    ("gateway", GatewaySettings, generate.GATEWAY_SETS),
    ("worker", WorkerSettings, generate.WORKER_SETS),
]


def _names(kind: type[BaseSettings], chart_sets: dict[str, str]) -> list[str]:
    return sorted(name for name in kind.model_fields if name not in chart_sets)


def _other(schema: dict[str, Any], standard: object) -> object:
    """A value that the schema allows, and that is not the default."""
    if "enum" in schema:
        return next(each for each in schema["enum"] if each != standard)
    match schema["type"]:
        case "boolean":
            return not standard
        case "integer":
            return (
                schema["minimum"] + 1
                if schema["minimum"] + 1 != standard
                else schema["minimum"] + 2
            )
        case "number":
            return schema["maximum"] / 4 + 0.125
    return "a" * 40


def test_what_is_generated_is_as_it_would_be_generated_now() -> None:
    """If this fails, run `python deploy/helm/generate.py`."""
    assert (CHART / "values.schema.json").read_text() == generate.schema_of(VALUES)
    readme = (CHART / "README.md").read_text()
    assert readme == generate.readme_of(VALUES, readme)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("group:\n  bare: 1\n", "line 2: group.bare has no comment"),
        ("# A number.\nports: 1\n", "line 2: ports is a number without"),
    ],
)
def test_a_value_without_a_comment_or_a_number_without_bounds_is_refused(
    text: str, what: str
) -> None:
    with pytest.raises(generate.ValuesUnusable, match=what):
        generate.read_values(text)


def test_every_list_number_and_text_has_an_upper_bound() -> None:
    bounds = {
        "array": "maxItems",
        "integer": "maximum",
        "number": "maximum",
        "object": ("maxProperties", "properties"),
    }

    def walk(schema: dict[str, Any], path: str) -> list[str]:
        wanted = (
            bounds.get(schema.get("type", ""), ()) if isinstance(schema.get("type"), str) else ()
        )
        missing = bool(wanted) and not any(
            each in schema for each in ((wanted,) if isinstance(wanted, str) else wanted)
        )
        inner = {f"{path}.{name}": each for name, each in schema.get("properties", {}).items()}
        return [path] * missing + [
            found for name, each in inner.items() for found in walk(each, name)
        ]

    whole = json.loads(generate.schema_of(VALUES))
    del whole["properties"]["global"]  # what a chart around this one gives is not read
    schemas = {"values": whole}
    for part, kind, sets in PARTS:
        schemas[part] = generate.settings_schema(kind, sets, {})
    unbounded = []
    for name, schema in schemas.items():
        unbounded += walk(schema, name)
    assert unbounded == []


@pytest.mark.parametrize(("part", "kind", "chart_sets"), PARTS, ids=["gateway", "worker"])
def test_every_setting_of_the_classes_reaches_the_environment(
    part: str, kind: type[BaseSettings], chart_sets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting is set to a value other than its default, and the rendered environment is
    read by the settings class."""
    schema = generate.settings_schema(kind, chart_sets, {})["properties"]
    names = _names(kind, chart_sets)
    assert list(schema) == [f"RERANK_{name.upper()}" for name in names]
    special = {
        "RERANK_CORS_ORIGINS": "https://app.example.com,http://localhost:3000",
        "RERANK_DEFAULT_TIMEOUT_MS": 10_000,
        "RERANK_DRAIN_SECONDS": 1,
        "RERANK_GRACE_SECONDS": 20.5,
        "RERANK_IMAGE_URL_HOSTS": "img.example.com,.example.org",
        "RERANK_IMAGES_MEMORY_BYTES": 67_108_864,
        "RERANK_MAX_BODIES_BYTES": 67_108_864,
        "RERANK_ADAPTERS": "legal=/models/legal",
        "RERANK_MODEL_ALIASES": "gpt=gmr-tiny",
        "RERANK_OTLP_ENDPOINT": "http://collector:4318",
        "RERANK_ENGINE": "vllm",
        "RERANK_ROOT_PATH": "/search",
    }
    settings = {
        name: special.get(name, _other(schema[name], kind.model_fields[field].default))
        for name, field in zip(schema, names, strict=True)
    }
    needed: dict[str, Any] = {"gpu": {"count": 1}}
    if part == "gateway":
        needed = {"feedback": {"existingClaim": "feedback"}}
    egress = {"gatewayEgress": [{}], "workerEgress": [{}]}
    brief = {"gateway": {"settings": {"RERANK_DEFAULT_TIMEOUT_MS": 10_000}}}
    given = {part: {"settings": settings} | needed, "networkPolicy": egress}
    found = objects(merged(brief, given))
    told = environment(container(found, f"rerank-{part}"))
    # what some settings need, and the chart sets itself
    needs = ["RERANK_FEEDBACK_FOLDER", "RERANK_REDIS_URL"] if part == "gateway" else []
    for name in (*schema, *needs):
        monkeypatch.setenv(name, told[name])
    monkeypatch.setenv("RERANK_CACHE_KEY_SECRET", "s" * 16)
    read = kind()
    standard = {name: field.default for name, field in kind.model_fields.items()}
    assert [name for name in names if getattr(read, name) == standard[name]] == []


def test_settings_that_the_chart_sets_itself_are_set_by_the_values_that_are_named() -> None:
    gateway = {
        "gateway": {
            "images": {"diskMiB": 1024},
            "feedback": {"existingClaim": "feedback"},
            "cascades": ["fast"],
        }
    }
    told = environment(container(objects(merged(EXTERNAL, gateway)), "rerank-gateway"))
    by_files = {"api_keys", "cache_key_secret", "redis_password"}
    assert {
        f"RERANK_{name.upper()}" for name in generate.GATEWAY_SETS.keys() - by_files
    } <= told.keys()
    assert {f"RERANK_{name.upper()}" for name in generate.WORKER_SETS} <= environment(
        container(
            objects(merged(HUB, GPU, {"model": {"family": "gmr"}, "worker": {"workersPerGpu": 2}})),
            "rerank-worker",
        )
    ).keys()
    paths = {value.name for group in VALUES for value in _leaves(group)} | {
        value.name for value in VALUES
    }
    named = {
        path
        for sets in (generate.GATEWAY_SETS, generate.WORKER_SETS)
        for each in sets.values()
        for path in each.split(", ")
    }
    assert {path for path in named if path not in paths and path != "model.download"} == set()


def test_the_page_of_upgrades_names_defaults_as_they_are() -> None:
    page = (ROOT / "docs/upgrading.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| \S+ \| (\S+) \|", page, re.MULTILINE)
    known = {value.name: value.default for group in VALUES for value in _leaves(group)}
    named = set(
        re.findall(r"`((?:gateway|worker|redis|model|test|trainer|evaluation)\.[a-zA-Z.]+)`", page)
    )
    assert len(rows) == 2
    for path, default in rows:
        part, _, setting = path.rpartition(".")
        values = known.get(part) or {}
        assert str(values.get(setting)) == default, path
    assert {path for path in named if path not in known} == set()


def _leaves(value: Any) -> list[Any]:
    return [value, *(leaf for part in value.parts for leaf in _leaves(part))]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (
            {"gateway": {"settings": {"RERANK_MAX_DOCUMENT": 5}}},
            "Additional property RERANK_MAX_DOCUMENT is not allowed",
        ),
        (
            {"gateway": {"settings": {"RERANK_WORKERS": "http://x"}}},
            "Additional property RERANK_WORKERS is not allowed",
        ),
        ({"worker": {"settings": {"RERANK_THREADS": -1}}}, "Must be greater than or equal to 0"),
        ({"gateway": {"replica": 2}}, "Additional property replica is not allowed"),
        ({"canary": {"worker": {"replica": 2}}}, "Additional property replica is not allowed"),
        ({"gateway": {"replicas": "two"}}, "Invalid type"),
        ({"gateway": {"replicas": 100_000}}, "Must be less than or equal to 1000"),
        ({"model": {"source": "ftp"}}, "must be one of"),
        ({"model": {"hub": {"revision": "main"}}}, "Does not match pattern"),
        ({"model": {"pvc": {"path": "../other"}}}, "Does not match pattern"),
        (
            {"imagePullSecrets": [{"name": f"s{number}"} for number in range(300)]},
            "at most 256 items",
        ),
    ],
)
def test_values_that_do_not_exist_or_are_out_of_bounds_are_refused(
    given: dict[str, Any], what: str
) -> None:
    assert what in complaint(given)
