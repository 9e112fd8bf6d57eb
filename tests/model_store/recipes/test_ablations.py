"""What is compared and how it is shown: the paper's numbers, variants, intervals, results, and the
page that ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from model_store.recipes.ablations import paper
from model_store.recipes.ablations.comparisons import COMPARISONS
from model_store.recipes.ablations.intervals import MAX_SEEDS, interval, seeds_needed
from model_store.recipes.ablations.plan import chosen
from model_store.recipes.ablations.report import PAGE, SUMMARY, publish
from model_store.recipes.ablations.results import BINS, Outcome, RunSummary, Summary, course, read
from model_store.recipes.ablations.tables import COURSES, DIFFERENCES, IMAGES, NEGATIVES, document
from model_store.recipes.ablations.variants import WORDS, Variant
from model_store.training.config import LossConfig, TrainingError
from tests.model_store.training.rows import written

DOCS = Path(__file__).parents[3] / "docs"
VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=30)


def test_the_papers_differences_are_those_of_its_means() -> None:
    for loss, printed in paper.TABLE_1_DIRECTION.items():
        assert paper.TABLE_1[loss, "cl"] - paper.TABLE_1[loss, "sft"] == pytest.approx(
            printed, abs=1e-9
        )
    for direction, printed in paper.TABLE_1_WEIGHT.items():
        assert paper.TABLE_1["cl", direction] - paper.TABLE_1["sft", direction] == pytest.approx(
            printed, abs=1e-9
        )
    for weight, printed in paper.TABLE_2_GAIN.items():
        assert paper.TABLE_2[weight] - paper.TABLE_2["base"] == pytest.approx(printed, abs=1e-9)
    for table, gains, kind in (
        (paper.TABLE_3, paper.TABLE_3_GAIN, "random"),
        (paper.TABLE_15, paper.TABLE_15_GAIN, "trainable"),
    ):
        for loss, printed in gains.items():
            assert table[loss, kind] - table[loss, "tokens"] == pytest.approx(printed, abs=1e-9)
    assert paper.TABLE_5["float32"] - paper.TABLE_5["float16"] == pytest.approx(paper.TABLE_5_GAIN)


def test_what_the_paper_prints_twice_is_the_same_where_it_means_the_same_run() -> None:
    assert paper.TABLE_3["sft", "tokens"] == paper.TABLE_1["sft", "sft"]
    assert paper.TABLE_3["cl", "tokens"] == paper.TABLE_5["float32"] == paper.TABLE_1["cl", "cl"]
    assert paper.TAU[1e-3] == paper.TABLE_2["base_masked"]
    assert [each[1:3] for each in paper.REPEATED] == [
        (paper.TABLE_1["sft", "sft"], paper.TABLE_15["sft", "tokens"]),
        (paper.TABLE_1["cl", "cl"], paper.TABLE_15["cl", "tokens"]),
        (paper.TABLE_1["cl", "sft"], paper.TABLE_2["base_cl"]),
    ]


@pytest.mark.parametrize("comparison", COMPARISONS.values(), ids=lambda comparison: comparison.name)
def test_a_difference_is_of_two_rows_and_prints_what_they_print(comparison) -> None:  # type: ignore[no-untyped-def]
    printed = {row.variant: row.paper for row in comparison.rows}
    for each in comparison.differences:
        assert {each.before, each.after} <= printed.keys()
        if (
            (before := printed[each.before]) is not None
            and (after := printed[each.after]) is not None
            and comparison.name != "weights"
        ):
            assert each.paper == pytest.approx(after - before, abs=1e-9)


def test_variants_are_told_apart_by_their_names_and_their_settings_are_valid() -> None:
    variants = {variant for comparison in COMPARISONS.values() for variant in comparison.variants}
    assert len({variant.name for variant in variants}) == len(variants)
    for variant in variants:
        LossConfig.model_validate(variant.settings()["loss"])
    assert len(WORDS) == len(set(WORDS)) == 16
    assert Variant(words=4).settings()["head"]["words"] == ("yes", "no", "No", "true")
    assert Variant("base_masked", tau=1e-4).name == "base_masked-sft-tau_0.0001"


def test_groups_are_chosen_by_name_and_an_unknown_one_is_refused() -> None:
    assert [comparison.name for comparison in chosen("weights, w-d")] == ["w-d", "weights"]
    assert len(chosen(None)) == len(COMPARISONS) == 9
    with pytest.raises(TrainingError, match="no comparison 'weigths'; did you mean weights"):
        chosen("w-d,weigths")
    with pytest.raises(TrainingError, match="there are w-d, curves, "):
        chosen("")


@given(VALUES)
def test_an_interval_is_students(values: list[float]) -> None:
    found = interval(values)
    low, high = t.interval(0.95, len(values) - 1, loc=0, scale=1)
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert found.reach is not None
    spread = (
        sum((value - found.mean) ** 2 for value in values) / (len(values) - 1) / len(values)
    ) ** 0.5
    assert found.reach == pytest.approx(spread * (high - low) / 2, rel=1e-3, abs=1e-6)
    assert found.sign == (0 if abs(found.mean) <= found.reach else 1 if found.mean > 0 else -1)


@given(VALUES, st.floats(-50, 50), st.floats(0.01, 10), st.randoms())
def test_an_interval_moves_and_stretches_with_its_values(
    values: list[float], shift: float, scale: float, rng
) -> None:  # type: ignore[no-untyped-def]
    before, shuffled = interval(values), list(values)
    rng.shuffle(shuffled)
    after = interval([scale * value + shift for value in shuffled])
    assert before.reach is not None
    assert after.mean == pytest.approx(scale * before.mean + shift, abs=1e-6)
    assert after.reach == pytest.approx(scale * before.reach, rel=1e-6, abs=1e-6)


def test_one_value_tells_nothing_of_others_and_none_has_no_mean() -> None:
    assert interval([3.0]).reach is None
    assert interval([3.0]).sign == 0
    with pytest.raises(ValueError, match="needs a value"):
        interval([])


@pytest.mark.parametrize(("size", "seeds"), [(1.1, 13), (0.59, 38), (0.21, 281)])
def test_a_smaller_difference_needs_more_seeds_as_tables_of_power_say(
    size: float, seeds: int
) -> None:
    spread = [-1.25, 0.0, 1.25]  # standard deviation 1.25
    assert seeds_needed(spread, size) == seeds
    assert seeds_needed([10 * value + 3 for value in spread], 10 * size) == seeds


def test_seeds_needed_are_two_at_least_and_bounded() -> None:
    assert seeds_needed([1.0, 1.0], 0.1) == 2
    assert seeds_needed([-9.0, 9.0], 1e-4) is None
    assert seeds_needed([-1.0, 1.0], 0.05) in range(2, MAX_SEEDS)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_a_course_keeps_a_runs_range_and_length(values: list[float]) -> None:
    found = course(values)
    assert len(found) == min(BINS, len(values))
    assert min(values) - 1e-5 <= min(found) <= max(found) <= max(values) + 1e-5
    if len(values) <= BINS:
        assert found == pytest.approx(values, abs=1e-5)


def summary(scores: dict[Variant, list[float]]) -> Summary:
    """Runs of these scores in per cent, by seed; both cells alike."""
    runs = [
        RunSummary(
            variant=variant.name,
            seed=seed,
            cells={"T-T": score / 100, "I-I": score / 100},
            positive=(0.8, 0.2),
            negative=(0.4, 0.1),
        )
        for variant, values in scores.items()
        for seed, score in enumerate(values)
    ]
    return Summary(facts={"base": "small", "steps": 2}, runs=tuple(runs))


def test_the_page_gives_means_intervals_and_verdicts_beside_the_paper() -> None:
    page = document(
        summary(
            {
                Variant(): [80.0, 81.0, 82.0],
                Variant("cl"): [70.0, 71.5, 72.0],
                Variant("sft", "cl"): [85.0, 86.0, 87.5],
                Variant("cl", "cl"): [60.0, 75.0],
            }
        )
    )
    assert "| W SFT, D SFT | 81.00 ± 2.48 | 80.0, 81.0, 82.0 | 58.09 |" in page
    assert (
        "| W from SFT to CL, D SFT | -9.83 ± 0.72 | -1.10 | as the paper | T-T -9.8 | -9.83 |"
        in page
    )
    assert (
        "| D from SFT to CL, W SFT | +5.17 ± 0.72 | -0.21 | opposite | T-T +5.2 | +5.17 |" in page
    )
    assert (
        "| W from SFT to CL, D CL | -18.00 ± 88.94 | -1.48 | not told apart | T-T -18.0 | -18.00 |"
        in page
    )  # of the two seeds that both have
    assert "| SFT | 0.800 | 0.200 | 0.400 | 0.100 |" in page
    claims = page.split("## Which claims hold")[1].split("## Weight and direction")[0]
    assert (
        "| W from SFT to CL, D SFT (table 1) | small | -1.10 | -9.83 ± 0.72 | as the paper | 3 | 3"
        in claims
    )
    assert "Of 4 differences: 1 as the paper, 2 not told apart, 1 opposite." in claims
    assert "Not run: differences of table 15, table 2 and appendix B.2, table 3, table 5." in claims
    assert "a learnt direction (table 3)" in page.split("**Not run here:**")[1]
    assert "## A learnt direction" not in page
    assert "## Weight functions" not in page


def test_a_difference_that_is_one_cells_is_said_to_be(tmp_path: Path) -> None:
    def run(variant: Variant, seed: int, **cells: float) -> RunSummary:
        return RunSummary(
            variant=variant.name, seed=seed, cells=cells, positive=(0.5,), negative=(0.5,)
        )

    runs = [
        *(run(Variant(), seed, **{"T-T": 0.2, "I-I": 0.8, "T-I": 0.8}) for seed in range(2)),
        *(run(Variant("cl"), seed, **{"T-T": 0.5, "I-I": 0.79, "T-I": 0.77}) for seed in range(3)),
        run(Variant("sft", "cl"), 0, **{"T-T": 0.9, "I-I": 0.9, "T-I": 0.9}),
    ]
    page = document(Summary(facts={}, runs=tuple(runs)))
    assert (
        "| W from SFT to CL, D SFT | +8.67 ± 0.00 | -1.10 | opposite | T-T +30.0 | -2.00 |" in page
    )
    order = (
        "Best first, ours: W SFT, D CL; W CL, D SFT; W SFT, D SFT. The paper's: W SFT, D SFT; W"
        " SFT, D CL; W CL, D SFT."
    )
    assert f"The order is not the paper's. {order}" in page
    papers = {Variant(): [90.0], Variant("sft", "cl"): [80.0], Variant("cl"): [70.0]}
    assert (
        "The order is the paper's. Best first, ours: W SFT, D SFT; W SFT, D CL; W CL, D SFT."
        in document(summary(papers))
    )
    assert "The order" not in document(summary({Variant(): [90.0], Variant("cl"): [70.0]}))


def test_what_was_run_in_part_is_shown_in_part() -> None:
    page = document(summary({Variant(): [80.0], Variant(head="random"): [70.0]}))
    assert "| SFT, random rows, learnt | 70.00 | 70.0 | 56.75 |" in page
    assert "| CL: random rows instead | not run | +1.32 |  |  |  |" in page
    assert "| SFT: random rows instead | -10.00 | -1.34 |  | T-T -10.0 | -10.00 |" in page
    assert "| SFT: random rows instead (table 3) | small | -1.34 | -10.00 | one seed | 1 |" in page


def test_plans_on_other_bases_stand_beside_the_first(tmp_path: Path) -> None:
    publish(summary({Variant(): [80.0], Variant("cl"): [70.0]}), tmp_path)
    orders = {Variant(template="code"): [80.0, 82.0], Variant(template="document-first"): [79, 82]}
    other = summary(orders).model_copy(update={"facts": {"base": "both-orders"}})
    for _ in range(2):  # the second time in place of the first
        page = publish(other, tmp_path, beside=True).read_text()

    head, section = page.split("## The document first (not the paper's)")
    assert "| base | small |" in head
    assert "| base | both-orders |" in section
    assert "| document first | 80.50 ± 19.06 | 79.0, 82.0 | - |" in section
    assert "| document first instead | -0.50 ± 6.35 | - | not told apart |" in section
    assert "| T-T | 81.0 | 80.5 | -0.50 ± 6.35 |" in section
    assert "the document first" not in section.split("**Not run here:**")[1]
    assert len(read(tmp_path / SUMMARY, Summary).beside) == 1
    with pytest.raises(TrainingError, match=r"ablations.json: it cannot be read"):
        publish(other, tmp_path / "nowhere", beside=True)


def test_nothing_run_is_a_page_that_says_so() -> None:
    page = document(Summary(facts={}, runs=()))
    assert "##" not in page
    assert "weight and direction (table 1)" in page


def test_the_report_draws_what_its_page_shows_and_is_the_same_each_time(tmp_path: Path) -> None:
    some = {Variant(): [80.0, 81.0], Variant("cl", "cl"): [70.0, 72.0]}
    page = publish(summary(some), tmp_path / "some")
    assert set(written(tmp_path / "some")) == {PAGE, SUMMARY, f"{IMAGES}/{COURSES}"}
    publish(read(tmp_path / "some" / SUMMARY, Summary), tmp_path / "again")
    assert written(tmp_path / "again") == written(tmp_path / "some")
    more = some | {Variant(negatives=count): [60.0 + count, 61.0 + count] for count in (1, 16)}
    assert f"]({IMAGES}/{NEGATIVES})" in publish(summary(more), tmp_path / "more").read_text()
    for name in (COURSES, DIFFERENCES, NEGATIVES):
        assert (tmp_path / "more" / IMAGES / name).read_bytes().startswith(b"\x89PNG")
    assert page.parent == tmp_path / "some"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": -1}, "seed: "),
        ({"variant": "../x"}, "variant: "),
        ({"positive": [float("inf")]}, "it: |positive"),
        ({"negative": []}, "negative: "),
        ({"more": 1}, "more: "),
    ],
)
def test_a_damaged_result_is_named_with_its_place(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    results = {
        "benchmark": "nine-cells-3",
        "metric": "ndcg@10",
        "checkpoint": f"sha256:{'0' * 64}",
        "datasets": {"T-T": {"a": 1.0}},
    }
    outcome = {
        "variant": "sft-sft",
        "seed": 0,
        "facts": {},
        "results": results,
        "positive": [0.5],
        "negative": [0.5],
    }
    path = tmp_path / "sft-sft-0.json"
    path.write_text(json.dumps(outcome))
    assert read(path, Outcome).results.score == 1.0
    path.write_text(json.dumps(outcome | change))
    with pytest.raises(
        TrainingError, match=f"sft-sft-0.json: this is no outcome of ablations: ({said})"
    ):
        read(path, Outcome)
    with pytest.raises(TrainingError, match="cannot be read"):
        read(tmp_path / "none.json", Outcome)


def test_the_page_that_ships_is_made_of_the_results_that_ship() -> None:
    shipped = read(DOCS / SUMMARY, Summary)
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    assert document(shipped) == page
    known = {variant.name for comparison in COMPARISONS.values() for variant in comparison.variants}
    assert {run.variant for run in shipped.runs} <= known
    assert all(len(shipped.of(variant.name)) >= 3 for variant in COMPARISONS["w-d"].variants)
    assert all(
        (DOCS / IMAGES / name).exists() == (name in page)
        for name in (COURSES, DIFFERENCES, NEGATIVES)
    )
