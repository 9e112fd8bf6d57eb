"""The paper's comparisons, most telling first, each with the numbers that the paper prints for it,
and one that is not the paper's.

Depends on variants and the paper, not on results. Invariant: every difference is one of two rows of
its own comparison.
"""

from __future__ import annotations

from typing import Literal

from model_store.recipes.ablations import paper
from model_store.recipes.ablations.variants import Comparison, Difference, Row, Variant

Loss = Literal["sft", "cl"]

SFT, CL = Variant("sft", "sft"), Variant("cl", "cl")
LOSSES: tuple[tuple[Loss, str], ...] = (("sft", "SFT"), ("cl", "CL"))
NEGATIVES = (1, 2, 4, 8, 16)
ORDER = "order"
"""The comparison of the two orders of a prompt, whose base has to know the signs of both."""


def _weight_and_direction() -> Comparison:
    rows: list[Row] = []
    for weight, weight_name in LOSSES:
        for direction, direction_name in LOSSES:
            label = f"W {weight_name}, D {direction_name}"
            printed = paper.TABLE_1[weight, direction]
            rows.append(Row(label, Variant(weight, direction), printed))

    differences: list[Difference] = []
    for direction, name in LOSSES:
        before, after = Variant("sft", direction), Variant("cl", direction)
        printed = paper.TABLE_1_WEIGHT[direction]
        differences.append(Difference(f"W from SFT to CL, D {name}", before, after, printed))

    for weight, name in LOSSES:
        before, after = Variant(weight, "sft"), Variant(weight, "cl")
        printed = paper.TABLE_1_DIRECTION[weight]
        differences.append(Difference(f"D from SFT to CL, W {name}", before, after, printed))

    return Comparison("w-d", "Weight and direction", "table 1", tuple(rows), tuple(differences))


def _weights() -> Comparison:
    """Appendix B.2: additions multiply the base weights, except CL's, which replace them."""
    base = Variant("base")
    masked = {tau: Variant("base_masked", tau=tau) for tau in paper.TAU}
    added = {
        "base_masked": ("base, masked by tau 0.001", masked[1e-3]),
        "base_cl": ("base + CL", Variant("cl")),
        "base_sft": ("base + SFT", Variant("base_sft")),
    }

    rows = [Row("base (eq. 14)", base, paper.TABLE_2["base"])]
    differences: list[Difference] = []
    for name, (label, variant) in added.items():
        rows.append(Row(label, variant, paper.TABLE_2[name]))
        gain = paper.TABLE_2_GAIN[name]
        differences.append(Difference(f"base to {label}", base, variant, gain))

    for tau in (1e-2, 1e-4):
        rows.append(Row(f"base, masked by tau {tau:g}", masked[tau], paper.TAU[tau]))
        gain = round(paper.TAU[tau] - paper.TAU[1e-3], 2)
        label = f"tau from 0.001 to {tau:g}"
        differences.append(Difference(label, masked[1e-3], masked[tau], gain))

    note = (
        'All along the direction of SFT. By appendix B.2 "base + CL" is the weight of CL itself, so'
        " its runs are those of W CL, D SFT above; the paper prints 56.99 for it in table 1 and"
        " 56.23 in table 2."
    )
    return Comparison(
        "weights",
        "Weight functions",
        "table 2 and appendix B.2",
        tuple(rows),
        tuple(differences),
        note,
    )


def _random() -> Comparison:
    rows: list[Row] = []
    differences: list[Difference] = []
    for loss, name in LOSSES:
        usual, learnt = Variant(loss, loss), Variant(loss, loss, head="random")
        rows.append(Row(f"{name}, rows of yes and no", usual, paper.TABLE_3[loss, "tokens"]))
        rows.append(Row(f"{name}, random rows, learnt", learnt, paper.TABLE_3[loss, "random"]))
        gain = paper.TABLE_3_GAIN[loss]
        differences.append(Difference(f"{name}: random rows instead", usual, learnt, gain))

    return Comparison("rand", "A learnt direction", "table 3", tuple(rows), tuple(differences))


def _frozen() -> Comparison:
    rows: list[Row] = []
    differences: list[Difference] = []
    for loss, name in LOSSES:
        frozen, trained = Variant(loss, loss), Variant(loss, loss, head="trainable")
        rows.append(Row(f"{name}, head frozen", frozen, paper.TABLE_15[loss, "tokens"]))
        rows.append(Row(f"{name}, head trained", trained, paper.TABLE_15[loss, "trainable"]))
        gain = paper.TABLE_15_GAIN[loss]
        differences.append(Difference(f"{name}: head trained instead", frozen, trained, gain))

    title = "The head: frozen or trained"
    return Comparison("frozen", title, "table 15", tuple(rows), tuple(differences))


def _precision() -> Comparison:
    fp16 = Variant("cl", "cl", weight_dtype="float16")
    bf16 = Variant("cl", "cl", weight_dtype="bfloat16")
    rows = (
        Row("CL, weights in fp16", fp16, paper.TABLE_5["float16"]),
        Row("CL, weights in bf16", bf16),
        Row("CL, weights in fp32", CL, paper.TABLE_5["float32"]),
    )
    differences = (
        Difference("fp16 to fp32", fp16, CL, paper.TABLE_5_GAIN),
        Difference("bf16 to fp32", bf16, CL),
    )
    return Comparison("precision", "Precision of the weights", "table 5", rows, differences)


def _negatives() -> Comparison:
    rows: list[Row] = []
    differences: list[Difference] = []
    for loss, name in LOSSES:
        variants = [Variant(loss, loss, negatives=count) for count in NEGATIVES]
        for count, variant in zip(NEGATIVES, variants, strict=True):
            rows.append(Row(f"{name}, {count} negatives", variant))
        label = f"{name}: from 1 negative to 16"
        differences.append(Difference(label, variants[0], variants[-1]))

    for count in NEGATIVES:
        sft = Variant("sft", "sft", negatives=count)
        cl = Variant("cl", "cl", negatives=count)
        differences.append(Difference(f"{count} negatives: from SFT to CL", sft, cl))

    note = (
        "The paper prints no numbers: both losses gain with every doubling up to 16, and SFT stays"
        " ahead."
    )
    return Comparison(
        "negatives",
        "Number of negatives",
        "figures 5 and 8",
        tuple(rows),
        tuple(differences),
        note,
    )


def _tokens() -> Comparison:
    rows = [Row("SFT over 2 words", SFT)]
    differences: list[Difference] = []
    for variant in (Variant(words=4), Variant(words=8), Variant(words=16)):
        rows.append(Row(f"SFT over {variant.words} words", variant))
        differences.append(Difference(f"from 2 words to {variant.words}", SFT, variant))
    note = "The paper prints no numbers: more words make no significant difference."
    title = "More words than yes and no"
    return Comparison("tokens", title, "figure 4", tuple(rows), tuple(differences), note)


def _curves() -> Comparison:
    note = (
        "What is drawn are W+ and W- over the steps. The paper prints no numbers: those of SFT are"
        " larger throughout."
    )
    rows = (Row("SFT", SFT), Row("CL", CL))
    return Comparison("curves", "W+ and W- in training", "figures 2 and 3", rows, (), note)


def _order() -> Comparison:
    first, second = Variant(template="code"), Variant(template="document-first")
    note = (
        "Keys and values of a document that comes first do not depend on the query, and are"
        " computed once for many queries. Both variants name their template, and are trained on"
        " one base that was taught the signs of both orders (`make tiny-d` leaves it in"
        " `build/gmr-tiny-d/base`). The two are not taught alike: gmr-tiny, where that base begins,"
        " learnt the query first in 2,200 steps of signs and answers by it; of the 600 steps that"
        " followed, 400 have the document first, with a sign of the whole pair where a picture"
        " takes part."
    )
    return Comparison(
        ORDER,
        "The document first",
        "not the paper's",
        (Row("query first", first), Row("document first", second)),
        (Difference("document first instead", first, second),),
        note,
    )


COMPARISONS = {
    comparison.name: comparison
    for comparison in (
        _weight_and_direction(),
        _curves(),
        _weights(),
        _random(),
        _frozen(),
        _negatives(),
        _precision(),
        _tokens(),
        _order(),
    )
}
"""The comparisons by name, in the order in which they are run and shown."""
