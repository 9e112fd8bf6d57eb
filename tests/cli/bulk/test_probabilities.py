"""Rows of a calibrated model have probabilities; those of another have none."""

from __future__ import annotations

from service.cli.bulk.requests import Scores


def answer(*probabilities: float | None) -> dict[str, object]:
    results: list[dict[str, object]] = []
    for index, probability in enumerate(probabilities):
        result: dict[str, object] = {"index": index, "relevance_score": 0.5, "logit": 0.0}
        results.append(result if probability is None else {**result, "probability": probability})
    return {"results": results, "errors": []}


def test_probabilities_are_in_the_order_of_the_candidates() -> None:
    found = Scores()
    found.expect(3)
    found.add(answer(0.25, 0.75), 1, "documents")
    assert found.fields()["probabilities"] == [None, 0.25, 0.75]


def test_without_a_map_or_with_an_error_there_are_none() -> None:
    found = Scores()
    found.expect(2)
    found.add(answer(None, None), 0, "documents")
    assert found.fields()["probabilities"] is None
    found.fail("invalid_row", "The line is no JSON object.")
    assert found.fields()["probabilities"] is None
