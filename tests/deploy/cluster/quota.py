"""ResourceQuotas: whether a Pod may be made in its namespace. Changes nothing."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from tests.deploy.cluster.catalogue import POD, QUOTA
from tests.deploy.cluster.pods import containers
from tests.deploy.cluster.quantities import amount
from tests.deploy.cluster.store import Store

Object = dict[str, Any]
_BARE = {"cpu": "requests.cpu", "memory": "requests.memory"}


def quota_problem(store: Store, namespace: str, spec: Object) -> str | None:
    """The first quota that the Pod fails, in the API server's words; none where it fails none."""
    for quota in store.list(QUOTA, namespace):
        hard = {_BARE.get(key, key): value for key, value in quota["spec"]["hard"].items()}
        name = quota["metadata"]["name"]
        for key, most in hard.items():
            side, _, resource = key.partition(".")
            if side not in {"limits", "requests"}:
                continue
            missing = [each["name"] for each in containers(spec) if not _of(each, side, resource)]
            if missing:
                return f"failed quota: {name}: must specify {key} for: {', '.join(missing)}"

            there = [pod["spec"] for pod in store.list(POD, namespace)]
            used = sum((_total(each, side, resource) for each in there), Fraction(0))
            if used + _total(spec, side, resource) > amount(most):
                return f"exceeded quota: {name}, {key}, limited: {most}"
    return None


def _of(container: Object, side: str, resource: str) -> Fraction:
    """The amount that a container states; a limit is a request, too."""
    resources = container.get("resources") or {}
    stated = resources.get(side) or {}
    if side == "requests":
        stated = (resources.get("limits") or {}) | stated
    return amount(stated.get(resource, 0))


def _total(spec: Object, side: str, resource: str) -> Fraction:
    """Of the Pod: its containers together, or the largest of its init containers."""
    beside = sum((_of(each, side, resource) for each in spec["containers"]), Fraction(0))
    before = [_of(each, side, resource) for each in spec.get("initContainers") or []]
    return max([beside, *before])
