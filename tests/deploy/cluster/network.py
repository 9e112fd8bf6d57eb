"""Who may connect to whom, by the NetworkPolicies there are."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.deploy.cluster.catalogue import NAMESPACE, NETWORK_POLICY
from tests.deploy.cluster.pods import ports
from tests.deploy.cluster.selectors import selects
from tests.deploy.cluster.store import Store

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of a connection: a Pod by its namespace and labels, or a machine outside by its
    address."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    named_ports: Mapping[str, int] = field(default_factory=dict)


DNS = Peer(namespace="kube-system", labels={"k8s-app": "kube-dns"})


def peer(pod: Object) -> Peer:
    named = {port["name"]: port["containerPort"] for port in ports(pod["spec"]) if port.get("name")}
    return Peer(
        pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}, named_ports=named
    )


def may_connect(store: Store, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether the source's egress and the target's ingress both let the connection through."""
    return _passes(store, source, target, "egress", port, target, protocol) and _passes(
        store, target, source, "ingress", port, target, protocol
    )


def _passes(
    store: Store, guarded: Peer, other: Peer, direction: str, port: int, target: Peer, protocol: str
) -> bool:
    """Whether one direction at one end lets it pass; an end that no policy selects lets everything
    pass."""
    if not guarded.namespace:
        return True
    policies = [
        policy["spec"]
        for policy in store.list(NETWORK_POLICY, guarded.namespace)
        if direction in _directions(policy["spec"])
        and selects(policy["spec"]["podSelector"], guarded.labels)
    ]
    side = {"egress": "to", "ingress": "from"}[direction]
    return not policies or any(
        _is_peer(store, guarded, rule.get(side), other)
        and _is_port(rule.get("ports"), port, target, protocol)
        for policy in policies
        for rule in policy.get(direction) or []
    )


def _directions(policy: Object) -> set[str]:
    stated = policy.get("policyTypes") or ["Ingress", *(["Egress"] if policy.get("egress") else [])]
    return {direction.lower() for direction in stated}


def _is_peer(store: Store, guarded: Peer, peers: list[Object] | None, other: Peer) -> bool:
    return not peers or any(_is_one(store, guarded, described, other) for described in peers)


def _is_one(store: Store, guarded: Peer, described: Object, other: Peer) -> bool:
    """A block of addresses covers no Pod here: whether it does is each network's own decision."""
    if block := described.get("ipBlock"):
        if not other.address:
            return False
        address = ipaddress.ip_address(other.address)
        within = address in ipaddress.ip_network(block["cidr"])
        return within and all(
            address not in ipaddress.ip_network(hole) for hole in block.get("except") or []
        )
    if not other.namespace:
        return False
    if "namespaceSelector" in described:
        namespace = store.get(NAMESPACE, "", other.namespace) or {
            "metadata": {"name": other.namespace}
        }
        if not selects(described["namespaceSelector"], namespace["metadata"].get("labels") or {}):
            return False
    elif other.namespace != guarded.namespace:
        return False
    return selects(described.get("podSelector", {}), other.labels)


def _is_port(allowed: list[Object] | None, port: int, target: Peer, protocol: str) -> bool:
    if not allowed:
        return True
    for rule in allowed:
        low = rule.get("port", port)
        low = target.named_ports.get(low) if isinstance(low, str) else low
        if (
            rule.get("protocol", "TCP") == protocol
            and low is not None
            and low <= port <= rule.get("endPort", low)
        ):
            return True
    return False
