"""Amounts of CPU and memory as Kubernetes writes them: 250m, 1.5, 2Gi."""

from __future__ import annotations

import re
from fractions import Fraction

_FORMAT = re.compile(r"([+-]?\d+(?:\.\d+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_DECIMAL = {"m": Fraction(1, 1000), "": Fraction(1)} | {
    unit: Fraction(1000) ** (n + 1) for n, unit in enumerate("kMGTPE")
}
_UNITS = _DECIMAL | {
    f"{unit.upper()}i": Fraction(1024) ** (n + 1) for n, unit in enumerate("kMGTPE")
}


def amount(quantity: str | int | float) -> Fraction:
    """The quantity as a number.

    Raises:
        ValueError: It is not one.
    """
    parsed = _FORMAT.fullmatch(str(quantity))
    if parsed is None:
        raise ValueError(f"{quantity!r} is not a quantity")
    return Fraction(parsed[1]) * _UNITS[parsed[2] or ""]
