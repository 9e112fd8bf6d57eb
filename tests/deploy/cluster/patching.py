"""Patches: RFC 7396 for operators' kinds, and strategic ones, where lists of named things are
merged by their key."""

from __future__ import annotations

from typing import Any

from tests.deploy.cluster.schemas import Schema, element, field

Object = dict[str, Any]
DIRECTIVES = ("$patch", "$retainKeys", "$setElementOrder/", "$deleteFromPrimitiveList/")


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396: null deletes, objects are merged, everything else is replaced."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def merge_strategically(
    target: Object, patch: Object, schema: Schema | None, version: str
) -> Object:
    """The same, but a list with a merge key is merged element by element, in the order that the
    patch asks for."""
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    merged = dict(target)
    if "$retainKeys" in patch:
        merged = {key: value for key, value in merged.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith(DIRECTIVES):
            continue
        of_field = field(schema, key, version)
        order = patch.get(f"$setElementOrder/{key}")
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = merged.get(key)
            merged[key] = merge_strategically(
                inner if isinstance(inner, dict) else {}, value, of_field, version
            )
        elif isinstance(value, list) and "merge" in of_field.get("x-kubernetes-patch-strategy", ""):
            merged[key] = _merge_list(merged.get(key) or [], value, of_field, order, version)
        else:
            merged[key] = value
    _order_untouched(merged, patch, schema, version)
    return merged


def _merge_list(
    target: list[Any], patch: list[Any], schema: Schema, order: list[Any] | None, version: str
) -> list[Any]:
    key = schema.get("x-kubernetes-patch-merge-key")
    if key is None:
        return _ordered([*target, *(value for value in patch if value not in target)], None, order)
    merged = {value[key]: value for value in target}
    for value in patch:
        if value.get("$patch") == "delete":
            merged.pop(value[key], None)
        else:
            merged[value[key]] = merge_strategically(
                merged.get(value[key], {}), value, element(schema, version), version
            )
    return _ordered(list(merged.values()), key, order)


def _order_untouched(merged: Object, patch: Object, schema: Schema | None, version: str) -> None:
    """Lists of which the patch changes the order alone, or removes plain values."""
    for directive, values in patch.items():
        kind, _, name = directive.partition("/")
        if kind == "$deleteFromPrimitiveList":
            merged[name] = [value for value in merged.get(name) or [] if value not in values]
        elif kind == "$setElementOrder" and name in merged and name not in patch:
            key = field(schema, name, version).get("x-kubernetes-patch-merge-key")
            merged[name] = _ordered(merged[name], key, values)


def _ordered(values: list[Any], key: str | None, order: list[Any] | None) -> list[Any]:
    """What the order names, as it does; then what it does not name, as it was."""
    if order is None:
        return values
    ranks = [value[key] if key else value for value in order]
    name = (lambda value: value[key]) if key else (lambda value: value)
    return sorted(
        values, key=lambda value: ranks.index(name(value)) if name(value) in ranks else len(ranks)
    )
