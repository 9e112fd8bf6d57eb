"""What the API server accepts and what does not work all the same: references into the void,
selectors that select nothing, calls that no network lets through. Empty for a release that is as it
should be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.deploy.cluster import catalogue as kinds
from tests.deploy.cluster.controllers import target_of
from tests.deploy.cluster.environment import calls
from tests.deploy.cluster.network import DNS, may_connect, peer
from tests.deploy.cluster.pod_checks import PROBES
from tests.deploy.cluster.pods import containers, declares_port, labels_of, template_of
from tests.deploy.cluster.selectors import selects
from tests.deploy.cluster.store import Store

Object = dict[str, Any]
HOOK = "helm.sh/hook"


def audit(store: Store, namespace: str = "default") -> list[str]:
    """Each finding names its object and, where there is one, the field."""
    checks = (
        pods,
        services,
        overlaps,
        ingresses,
        routes,
        scalers,
        budgets,
        policies,
        service_monitors,
        pod_monitors,
        connections,
    )
    return [finding for check in checks for finding in check(store, namespace)]


def pods_and_hooks(store: Store, namespace: str) -> list[Object]:
    """The Pods there are, and those that helm ran and took away again."""
    hooks = [
        pod
        for pod in store.gone(kinds.POD, namespace)
        if HOOK in (pod["metadata"].get("annotations") or {})
    ]
    return [*store.list(kinds.POD, namespace), *hooks]


def pods(store: Store, namespace: str) -> Iterator[str]:
    """Pods that wait, and ports that probes name and nobody declares."""
    for pod in store.list(kinds.POD, namespace):
        if pod["status"]["phase"] == "Pending":
            yield f"{name_of(pod)}: {pod['status']['message']}"
        for container in containers(pod["spec"]):
            for probe, port in _probed(container):
                if not declares_port({"containers": [container]}, port):
                    yield (
                        f"{name_of(pod)}: {container['name']}.{probe} asks port {port}, which it"
                        " does not declare"
                    )
        for secret in pod["spec"].get("imagePullSecrets") or []:
            yield from _absent(store, kinds.SECRET, namespace, secret["name"], name_of(pod))


def _probed(container: Object) -> Iterator[tuple[str, int | str]]:
    for probe in PROBES:
        for how in ("httpGet", "tcpSocket", "grpc"):
            if asked := (container.get(probe) or {}).get(how):
                yield probe, asked["port"]


def services(store: Store, namespace: str) -> Iterator[str]:
    """Services that select no Pod, and ports that lead nowhere."""
    for service in store.list(kinds.SERVICE, namespace):
        behind = endpoints(store, service)
        if (
            not behind
            and service["spec"].get("selector")
            and not _is_to_have_none(store, service, service["spec"]["selector"])
        ):
            yield f"{name_of(service)}: selects no Pod"
        for port in service["spec"].get("ports") or []:
            target = port.get("targetPort", port["port"])
            for pod in behind:
                if not declares_port(pod["spec"], target):
                    yield (
                        f"{name_of(service)}: port {port['port']} leads to {target}, which"
                        f" {name_of(pod)} does not declare"
                    )


def endpoints(store: Store, service: Object) -> list[Object]:
    """The Pods behind a Service, ready or not."""
    selector = service["spec"].get("selector")
    return _selected(store, kinds.POD, service, {"matchLabels": selector} if selector else None)


def _selected(
    store: Store, resource: kinds.Resource, beside: Object, selector: Object | None
) -> list[Object]:
    there = store.list(resource, beside["metadata"]["namespace"])
    return [value for value in there if selects(selector, labels_of(value))]


def _is_to_have_none(store: Store, beside: Object, labels: dict[str, str]) -> bool:
    """Whether a workload would make such Pods, and is to have none at present."""
    meant = [
        value
        for value in _workloads(store, beside["metadata"]["namespace"])
        if selects({"matchLabels": labels}, labels_of(value["spec"]["template"]))
    ]
    return bool(meant) and all(value["spec"]["replicas"] == 0 for value in meant)


def _workloads(store: Store, namespace: str) -> list[Object]:
    return [*store.list(kinds.DEPLOYMENT, namespace), *store.list(kinds.STATEFUL_SET, namespace)]


def overlaps(store: Store, namespace: str) -> Iterator[str]:
    """Pods that two workloads would fight over."""
    for pod in store.list(kinds.POD, namespace):
        owners = [
            name_of(value)
            for value in _workloads(store, namespace)
            if selects(value["spec"]["selector"], labels_of(pod))
        ]
        if len(owners) > 1:
            yield f"{name_of(pod)}: selected by {' and '.join(owners)}"


def ingresses(store: Store, namespace: str) -> Iterator[str]:
    """Services and certificates that Ingresses name and that are not there."""
    for ingress in store.list(kinds.INGRESS, namespace):
        for rule in ingress["spec"].get("rules") or []:
            for path in (rule.get("http") or {}).get("paths") or []:
                called = path["backend"]["service"]
                yield from _backend(
                    store,
                    ingress,
                    called["name"],
                    called["port"].get("number") or called["port"]["name"],
                )
        for certificate in ingress["spec"].get("tls") or []:
            if "secretName" in certificate:
                yield from _absent(
                    store, kinds.SECRET, namespace, certificate["secretName"], name_of(ingress)
                )


def routes(store: Store, namespace: str) -> Iterator[str]:
    """The same of HTTPRoutes."""
    for route in store.list(kinds.HTTP_ROUTE, namespace):
        for rule in route["spec"].get("rules") or []:
            for called in rule.get("backendRefs") or []:
                yield from _backend(store, route, called["name"], called["port"])


def _backend(store: Store, of: Object, service: str, port: int | str) -> Iterator[str]:
    found = store.get(kinds.SERVICE, of["metadata"]["namespace"], service)
    if found is None:
        yield f"{name_of(of)}: Service {service!r} not found"
    elif not any(port in (known["port"], known.get("name")) for known in found["spec"]["ports"]):
        yield f"{name_of(of)}: Service {service!r} has no port {port}"


def scalers(store: Store, namespace: str) -> Iterator[str]:
    """Autoscalers without a target, two for one target, and ones by a share of a request that no
    container makes."""
    scaled: dict[str, str] = {}
    for scaler in [
        *store.list(kinds.AUTOSCALER, namespace),
        *store.list(kinds.SCALED_OBJECT, namespace),
    ]:
        target = store.get(target_of(scaler), namespace, scaler["spec"]["scaleTargetRef"]["name"])
        if target is None:
            yield (
                f"{name_of(scaler)}: {target_of(scaler).kind}"
                f" {scaler['spec']['scaleTargetRef']['name']!r} not found"
            )
            continue
        other = scaled.setdefault(name_of(target), name_of(scaler))
        if other != name_of(scaler):
            yield f"{name_of(scaler)}: {other} scales {name_of(target)}, too"
        for metric in scaler["spec"].get("metrics") or []:
            wanted = (metric.get("resource") or {}).get("name")
            requests = [
                (of.get("resources") or {}).get("requests") or {}
                for of in target["spec"]["template"]["spec"]["containers"]
            ]
            if wanted and not all(wanted in asked for asked in requests):
                yield (
                    f"{name_of(scaler)}: scales by {wanted}, which not every container of"
                    f" {name_of(target)} requests"
                )


def budgets(store: Store, namespace: str) -> Iterator[str]:
    """Budgets that select nothing, and ones that never let a node be drained."""
    for budget in store.list(kinds.BUDGET, namespace):
        spec = budget["spec"]
        chosen = _selected(store, kinds.POD, budget, spec["selector"])
        if not chosen and not _is_to_have_none(
            store, budget, spec["selector"].get("matchLabels") or {}
        ):
            yield f"{name_of(budget)}: selects no Pod"
        if spec.get("maxUnavailable") in (0, "0%") or (
            chosen and spec.get("minAvailable") in (len(chosen), "100%")
        ):
            yield (
                f"{name_of(budget)}: lets none of {len(chosen)} Pods be evicted, so no node can be"
                " drained"
            )


def policies(store: Store, namespace: str) -> Iterator[str]:
    """NetworkPolicies that guard nothing."""
    runners = (
        *_workloads(store, namespace),
        *store.list(kinds.JOB, namespace),
        *store.list(kinds.CRON_JOB, namespace),
    )
    labels = [
        labels_of(template_of(value) or {})
        for value in (*runners, *pods_and_hooks(store, namespace))
    ]
    for policy in store.list(kinds.NETWORK_POLICY, namespace):
        if not any(selects(policy["spec"]["podSelector"], known) for known in labels):
            yield f"{name_of(policy)}: selects no Pod"


def service_monitors(store: Store, namespace: str) -> Iterator[str]:
    """ServiceMonitors of ports that no Service offers."""
    for monitor in store.list(kinds.SERVICE_MONITOR, namespace):
        chosen = _selected(store, kinds.SERVICE, monitor, monitor["spec"]["selector"])
        offered = {port.get("name") for service in chosen for port in service["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint.get("port") not in offered:
                yield (
                    f"{name_of(monitor)}: no Service that it selects has a port"
                    f" {endpoint.get('port')!r}"
                )


def pod_monitors(store: Store, namespace: str) -> Iterator[str]:
    """PodMonitors of ports that no Pod declares, or of Pods that declare none of the ports."""
    for monitor in store.list(kinds.POD_MONITOR, namespace):
        chosen = _selected(store, kinds.POD, monitor, monitor["spec"]["selector"])
        ports = [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]]
        for port in ports:
            if not any(declares_port(pod["spec"], port) for pod in chosen):
                yield f"{name_of(monitor)}: no Pod that it selects has a port {port!r}"
        if not all(any(declares_port(pod["spec"], port) for port in ports) for pod in chosen):
            yield (
                f"{name_of(monitor)}: not all of the {len(chosen)} Pods that it selects have one of"
                f" its ports"
            )


def connections(store: Store, namespace: str) -> Iterator[str]:
    """What Pods are told to call: the Service must be there, its port must be, and the network must
    let them through."""
    for pod in pods_and_hooks(store, namespace):
        for container in containers(pod["spec"]):
            for called in calls(store, pod, container):
                if called.namespace == namespace:  # another one is another release's affair
                    where = (
                        f"{name_of(pod)}: {container['name']}.{called.where} names"
                        f" {called.service}:{called.port}"
                    )
                    yield from (
                        f"{where}, {why}"
                        for why in _unreachable(store, pod, called.service, called.port)
                    )


def _unreachable(store: Store, pod: Object, service: str, port: int) -> Iterator[str]:
    found = store.get(kinds.SERVICE, pod["metadata"]["namespace"], service)
    if found is None:
        yield "and there is no such Service"
        return
    if not may_connect(store, peer(pod), DNS, 53, "UDP"):
        yield "and no policy lets it ask the DNS"
    headless = found["spec"].get("clusterIP") == "None"
    target = {
        known["port"]: known.get("targetPort", known["port"]) for known in found["spec"]["ports"]
    }.get(port)
    if target is None and not headless:
        yield "and the Service has no such port"
        return
    for other in endpoints(store, found):
        end = peer(other)
        number = port if headless or target is None else end.named_ports.get(str(target), target)
        if not declares_port(other["spec"], number):
            yield f"and {name_of(other)} does not declare {number}"
        elif not may_connect(store, peer(pod), end, int(number)):
            yield f"and no policy lets it reach {name_of(other)}"


def _absent(
    store: Store, resource: kinds.Resource, namespace: str, name: str, by: str
) -> Iterator[str]:
    if store.get(resource, namespace, name) is None:
        yield f"{by}: {resource.kind} {name!r} not found"


def name_of(value: Object) -> str:
    return f"{value['kind']} {value['metadata']['name']}"
