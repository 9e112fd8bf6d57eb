"""The numbers that the paper prints for its comparisons.

Depends on the paper alone. All are means over the 40 data sets of MRB, of rerankers that were
trained with 4 negatives on the subset of 270,000 examples, on the top 25 candidates (section 5.1).
Figures 2, 3, 4, 5 and 8 print no numbers. Invariant: a printed difference equals that of its two
printed means, which a test checks.
"""

from __future__ import annotations

TABLE_1 = {("sft", "sft"): 58.09, ("sft", "cl"): 57.88, ("cl", "sft"): 56.99, ("cl", "cl"): 56.40}
"""By weight and direction."""
TABLE_1_DIRECTION = {"sft": -0.21, "cl": -0.59}
"""From the direction of SFT to that of CL, by weight."""
TABLE_1_WEIGHT = {"sft": -1.10, "cl": -1.48}
"""From the weight of SFT to that of CL, by direction."""

TABLE_2 = {"base": 49.47, "base_masked": 56.57, "base_cl": 56.23, "base_sft": 58.19}
"""By weight, along the direction of SFT."""
TABLE_2_GAIN = {"base_masked": 7.10, "base_cl": 6.76, "base_sft": 8.72}
"""The gain over the base weights alone."""

TABLE_3 = {
    ("sft", "tokens"): 58.09,
    ("sft", "random"): 56.75,
    ("cl", "tokens"): 56.40,
    ("cl", "random"): 57.72,
}
"""By loss and by the rows of the head: the vocabulary's own, or learnt from random ones."""
TABLE_3_GAIN = {"sft": -1.34, "cl": 1.32}

TABLE_5 = {"float16": 56.09, "float32": 56.40}
"""CL, by the precision in which its weights are computed."""
TABLE_5_GAIN = 0.31

TAU = {1e-2: 55.07, 1e-3: 56.57, 1e-4: 55.89}
"""By the mask's threshold: appendix B.2, the unnumbered table, which is the sixth."""

TABLE_15 = {
    ("sft", "tokens"): 57.97,
    ("sft", "trainable"): 57.94,
    ("cl", "tokens"): 55.95,
    ("cl", "trainable"): 57.20,
}
"""By loss and by the head's rows: frozen ("tokens") or trained."""
TABLE_15_GAIN = {"sft": -0.03, "cl": 1.25}

REPEATED = (
    ("SFT", 58.09, 57.97, "tables 1 and 15"),
    ("CL", 56.40, 55.95, "tables 1 and 15"),
    ("W CL along D SFT", 56.99, 56.23, "tables 1 and 2"),
)
"""Settings that are printed twice (the last one by appendix B.2): they show how far two runs of one
setting differ in the paper."""
