"""The paper's comparisons, most telling first, each with the numbers that the paper prints for it.

Knows variants and the paper, no results. Invariant: every difference is one of two rows of its own
group.
"""

from __future__ import annotations

from typing import Literal

from model_store.recipes.ablations import paper
from model_store.recipes.ablations.variants import Difference, Group, Row, Variant
from model_store.training.losses import Direction

Loss = Literal["sft", "cl"]

SFT, CL = Variant("sft", "sft"), Variant("cl", "cl")
LOSSES: tuple[tuple[Loss, str], ...] = (("sft", "SFT"), ("cl", "CL"))
NEGATIVES = (1, 2, 4, 8, 16)


def _weight_and_direction() -> Group:
    def cell(weight: Loss, direction: Direction) -> Variant:
        return Variant(weight, direction)

    rows = [
        Row(f"W {w}, D {d}", cell(x, y), paper.TABLE_1[x, y]) for x, w in LOSSES for y, d in LOSSES
    ]
    weights = [
        Difference(
            f"W from SFT to CL, D {d}", cell("sft", y), cell("cl", y), paper.TABLE_1_WEIGHT[y]
        )
        for y, d in LOSSES
    ]
    directions = [
        Difference(
            f"D from SFT to CL, W {w}", cell(x, "sft"), cell(x, "cl"), paper.TABLE_1_DIRECTION[x]
        )
        for x, w in LOSSES
    ]
    return Group("w-d", "Weight and direction", "table 1", tuple(rows), (*weights, *directions))


def _weights() -> Group:
    """Appendix B.2: what is added to the base is multiplied with it, but CL's weights, which stand
    in its place."""
    base = Variant("base")
    masked = {tau: Variant("base_masked", tau=tau) for tau in paper.TAU}
    added = {
        "base_masked": ("base, masked by tau 0.001", masked[1e-3]),
        "base_cl": ("base + CL", Variant("cl")),
        "base_sft": ("base + SFT", Variant("base_sft")),
    }
    rows = [Row("base (eq. 14)", base, paper.TABLE_2["base"])]
    rows += [Row(label, variant, paper.TABLE_2[name]) for name, (label, variant) in added.items()]
    rows += [
        Row(f"base, masked by tau {tau:g}", masked[tau], paper.TAU[tau]) for tau in (1e-2, 1e-4)
    ]
    gains = [
        Difference(f"base to {label}", base, variant, paper.TABLE_2_GAIN[name])
        for name, (label, variant) in added.items()
    ]
    taus = [
        Difference(
            f"tau from 0.001 to {tau:g}",
            masked[1e-3],
            masked[tau],
            round(paper.TAU[tau] - paper.TAU[1e-3], 2),
        )
        for tau in (1e-2, 1e-4)
    ]
    note = (
        'All along the direction of SFT. By appendix B.2 "base + CL" is the weight of CL itself, so'
        " its runs are those of W CL, D SFT above; the paper prints 56.99 for it in table 1 and"
        " 56.23 in table 2."
    )
    return Group(
        "weights",
        "Weight functions",
        "table 2 and appendix B.2",
        tuple(rows),
        (*gains, *taus),
        note,
    )


def _random() -> Group:
    rows, differences = [], []
    for loss, name in LOSSES:
        usual, learnt = Variant(loss, loss), Variant(loss, loss, head="random")
        rows.append(Row(f"{name}, rows of yes and no", usual, paper.TABLE_3[loss, "tokens"]))
        rows.append(Row(f"{name}, random rows, learnt", learnt, paper.TABLE_3[loss, "random"]))
        differences.append(
            Difference(f"{name}: random rows instead", usual, learnt, paper.TABLE_3_GAIN[loss])
        )
    return Group("rand", "A learnt direction", "table 3", tuple(rows), tuple(differences))


def _frozen() -> Group:
    rows, differences = [], []
    for loss, name in LOSSES:
        frozen, free = Variant(loss, loss), Variant(loss, loss, head="trainable")
        rows.append(Row(f"{name}, head frozen", frozen, paper.TABLE_15[loss, "tokens"]))
        rows.append(Row(f"{name}, head trained", free, paper.TABLE_15[loss, "trainable"]))
        differences.append(
            Difference(f"{name}: head trained instead", frozen, free, paper.TABLE_15_GAIN[loss])
        )
    return Group(
        "frozen", "The head: frozen or trained", "table 15", tuple(rows), tuple(differences)
    )


def _precision() -> Group:
    half, brain = (
        Variant("cl", "cl", weight_dtype="float16"),
        Variant("cl", "cl", weight_dtype="bfloat16"),
    )
    rows = (
        Row("CL, weights in fp16", half, paper.TABLE_5["float16"]),
        Row("CL, weights in bf16", brain),
        Row("CL, weights in fp32", CL, paper.TABLE_5["float32"]),
    )
    differences = (
        Difference("fp16 to fp32", half, CL, paper.TABLE_5_GAIN),
        Difference("bf16 to fp32", brain, CL),
    )
    return Group("precision", "Precision of the weights", "table 5", rows, differences)


def _negatives() -> Group:
    counts = {
        (loss, count): Variant(loss, loss, negatives=count)
        for loss, _ in LOSSES
        for count in NEGATIVES
    }
    rows = [
        Row(f"{name}, {count} negatives", counts[loss, count])
        for loss, name in LOSSES
        for count in NEGATIVES
    ]
    growth = [
        Difference(f"{name}: from 1 negative to 16", counts[loss, 1], counts[loss, 16])
        for loss, name in LOSSES
    ]
    ahead = [
        Difference(f"{count} negatives: from SFT to CL", counts["sft", count], counts["cl", count])
        for count in NEGATIVES
    ]
    note = (
        "The paper prints no numbers: both losses gain with every doubling up to 16, and SFT stays"
        " ahead."
    )
    return Group(
        "negatives", "Number of negatives", "figures 5 and 8", tuple(rows), (*growth, *ahead), note
    )


def _tokens() -> Group:
    more = [Variant(words=4), Variant(words=8), Variant(words=16)]
    rows = [Row(f"SFT over {each.words} words", each) for each in (SFT, *more)]
    differences = [Difference(f"from 2 words to {each.words}", SFT, each) for each in more]
    note = "The paper prints no numbers: more words make no significant difference."
    return Group(
        "tokens", "More words than yes and no", "figure 4", tuple(rows), tuple(differences), note
    )


def _curves() -> Group:
    note = (
        "What is drawn are W+ and W- over the steps. The paper prints no numbers: those of SFT are"
        " larger throughout."
    )
    return Group(
        "curves",
        "W+ and W- in training",
        "figures 2 and 3",
        (Row("SFT", SFT), Row("CL", CL)),
        (),
        note,
    )


GROUPS = {
    group.name: group
    for group in (
        _weight_and_direction(),
        _curves(),
        _weights(),
        _random(),
        _frozen(),
        _negatives(),
        _precision(),
        _tokens(),
    )
}
"""By name, in the order in which they are run and shown."""
