"""The variables at the top of the dashboards."""

from __future__ import annotations

from deploy.dashboards.pages import Variable

_NAMESPACE = 'namespace=~"$namespace"'


def targets(role: str) -> tuple[Variable, ...]:
    """Namespace, job and pod of the processes with a role. Other roles are excluded even by "All",
    because gateways and workers export the same metrics, many of them 0."""
    processes = f'rerank_build_info{{{_NAMESPACE}, role=~"{role}|serve"}}'
    return (
        Variable("namespace", "Namespace", "label_values(rerank_build_info, namespace)"),
        Variable("job", "Job", f"label_values({processes}, job)", chained=True),
        Variable("pod", "Pod", f'label_values({processes[:-1]}, job=~"$job"}}, pod)'),
    )


MODEL = Variable("model", "Model", f"label_values(rerank_model_workers{{{_NAMESPACE}}}, model)")
DIGEST = Variable(
    "digest",
    "Digest",
    f'label_values(rerank_model_workers{{{_NAMESPACE}, model=~"$model"}}, digest)',
    chained=True,
)
