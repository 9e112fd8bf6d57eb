"""Probabilities of a model: the calibration that a request needs, and its description.

Depends on the query and the model's description alone. Invariant: a query whose `min_score` is a
probability passes only where the model has a calibration for its instruction.
"""

from __future__ import annotations

from service.errors import InvalidRequest
from service.gateway.domain import RerankQuery
from service.wire import WorkerInfo


def expect_calibrated(query: RerankQuery, model: WorkerInfo) -> None:
    """Raise `InvalidRequest` where the query's `min_score` is a probability and the model has no
    calibration for its instruction."""
    if not query.min_probability or model.calibration(query.instruction) is not None:
        return

    sentence = f"The model {model.model} has no calibration"
    if model.calibrations:
        sentence += " for this instruction"
    raise InvalidRequest(f"{sentence}, so that its results have no probability.").at(
        ("min_score_on",)
    )


def described(model: WorkerInfo) -> list[dict[str, object]]:
    """The calibrations of a model, one for each of its instructions."""
    return [
        {
            "instruction": each.instruction,
            "map": each.map.__struct_config__.tag,
            "rows": f"sha256:{each.rows}",
            "pairs": each.pairs,
            "relevant_share": each.relevant_share,
            "ece": each.ece,
            "ece_interval": [each.ece_low, each.ece_high],
        }
        for each in model.calibrations
    ]
