"""The kinds that are served: those of every cluster, and those that operators bring."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as discovery names it; an empty group is the core one."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


NAMESPACE = Resource("", "v1", "Namespace", "namespaces", namespaced=False, short_names=("ns",))
NODE = Resource("", "v1", "Node", "nodes", namespaced=False, short_names=("no",))
POD = Resource("", "v1", "Pod", "pods", short_names=("po",))
SERVICE = Resource("", "v1", "Service", "services", short_names=("svc",))
SERVICE_ACCOUNT = Resource("", "v1", "ServiceAccount", "serviceaccounts", short_names=("sa",))
CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps", short_names=("cm",))
SECRET = Resource("", "v1", "Secret", "secrets")
CLAIM = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short_names=("pvc",))
QUOTA = Resource("", "v1", "ResourceQuota", "resourcequotas", short_names=("quota",))
DEPLOYMENT = Resource("apps", "v1", "Deployment", "deployments", short_names=("deploy",))
REPLICA_SET = Resource("apps", "v1", "ReplicaSet", "replicasets", short_names=("rs",))
STATEFUL_SET = Resource("apps", "v1", "StatefulSet", "statefulsets", short_names=("sts",))
JOB = Resource("batch", "v1", "Job", "jobs")
CRON_JOB = Resource("batch", "v1", "CronJob", "cronjobs", short_names=("cj",))
AUTOSCALER = Resource(
    "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", short_names=("hpa",)
)
BUDGET = Resource(
    "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", short_names=("pdb",)
)
INGRESS = Resource("networking.k8s.io", "v1", "Ingress", "ingresses", short_names=("ing",))
NETWORK_POLICY = Resource(
    "networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", short_names=("netpol",)
)
STORAGE_CLASS = Resource("storage.k8s.io", "v1", "StorageClass", "storageclasses", namespaced=False)
PRIORITY_CLASS = Resource(
    "scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", namespaced=False
)
RUNTIME_CLASS = Resource("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", namespaced=False)
ROLE = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDING = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")

SCALED_OBJECT = Resource(
    "keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", short_names=("so",)
)
SERVICE_MONITOR = Resource("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors")
POD_MONITOR = Resource("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors")
HTTP_ROUTE = Resource("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")

BUILT_IN = (
    *(NAMESPACE, NODE, POD, SERVICE, SERVICE_ACCOUNT, CONFIG_MAP, SECRET, CLAIM, QUOTA),
    *(
        DEPLOYMENT,
        REPLICA_SET,
        STATEFUL_SET,
        JOB,
        CRON_JOB,
        AUTOSCALER,
        BUDGET,
        INGRESS,
        NETWORK_POLICY,
    ),
    *(STORAGE_CLASS, PRIORITY_CLASS, RUNTIME_CLASS, ROLE, ROLE_BINDING),
)
OPERATORS = (
    *(SCALED_OBJECT, SERVICE_MONITOR, POD_MONITOR, HTTP_ROUTE),
    Resource("keda.sh", "v1alpha1", "TriggerAuthentication", "triggerauthentications"),
    Resource("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
)
"""What KEDA, the Prometheus operator, and the Gateway API add. Their objects are stored as they
come: `test_crds` types them."""
