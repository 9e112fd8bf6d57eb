"""What a viewer can choose at the top of a dashboard."""

from __future__ import annotations

from deploy.dashboards.pages import Variable

_NAMESPACE = 'namespace=~"$namespace"'


def places(role: str) -> tuple[Variable, ...]:
    """Where processes of a role run. All is those of the role: gateways and workers export the same
    metrics, many of them 0."""
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
