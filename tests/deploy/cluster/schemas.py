"""The published schemas of a Kubernetes version: what an object may hold, and by which key its
lists are merged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource

Schema = Mapping[str, Any]


def violation(value: dict[str, Any], version: str) -> str | None:
    """What is wrong with the object by the strict schema (a misspelled key is wrong, too), or
    nothing."""
    error = best_match(_validator(value["apiVersion"], value["kind"], version).iter_errors(value))
    return error and f"{'.'.join(map(str, error.absolute_path)) or '(root)'}: {error.message}"


@cache
def _validator(api_version: str, kind: str, version: str) -> Draft202012Validator:
    """As `kubernetes_validate.validate` makes it for every object anew, of 1.3 MB of
    definitions."""
    group, _, of_group = api_version.rpartition("/")
    schema = _published(
        f"{'-'.join(filter(None, (kind.lower(), group.partition('.')[0], of_group)))}.json", version
    )
    definitions = Resource.from_contents(_published("_definitions.json", version))
    return Draft202012Validator(
        schema, registry=Resource.from_contents(schema) @ (definitions @ Registry())
    )


@cache
def _published(name: str, version: str) -> Schema:
    path = files(kubernetes_validate) / f"kubernetes-json-schema/v{version}.0-local-strict" / name
    schema: Schema = json.loads(path.read_text(encoding="utf-8"))
    return schema


def _definitions(version: str) -> Schema:
    definitions: Schema = _published("_definitions.json", version)["$defs"]
    return definitions


@cache
def schema_of(api_version: str, kind: str, version: str) -> Schema | None:
    """The schema of a built-in kind; none of an operator's, whose lists are replaced as a whole."""
    group, _, of_group = api_version.rpartition("/")
    wanted = {"group": group, "version": of_group, "kind": kind}
    definitions = _definitions(version).values()
    return next(
        (
            schema
            for schema in definitions
            if schema.get("x-kubernetes-group-version-kind") == [wanted]
        ),
        None,
    )


def field(schema: Schema | None, name: str, version: str) -> Schema:
    """The schema of a field, its reference followed but its own merge key kept;
    `additionalProperties` of a map."""
    if not schema:
        return {}
    inner = (schema.get("properties") or {}).get(name) or schema.get("additionalProperties")
    return _resolved(inner, version) if isinstance(inner, dict) else {}


def element(schema: Schema, version: str) -> Schema:
    """The schema of a list's elements."""
    return _resolved(schema.get("items") or {}, version)


def _resolved(schema: Schema, version: str) -> Schema:
    reference = schema.get("$ref")
    return _definitions(version)[reference.rpartition("/")[2]] | schema if reference else schema
