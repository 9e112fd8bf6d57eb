"""The precision of a run, where the configuration leaves it to the machine.

Depends on processors and GPUs, not on networks. Invariant: an automatic choice comes with a notice,
and so does a choice that is slow on this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

CPUINFO = Path("/proc/cpuinfo")
Precision = Literal["fp32", "bf16"]
Asked = Literal["auto", "fp32", "bf16"]
_MAX_BYTES = 2**20
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""As Linux names the instructions of x86 and, the last one, of Arm."""


def choose_precision(
    asked: Asked, device: str, cpuinfo: Path = CPUINFO
) -> tuple[Precision, str | None]:
    """The precision for a device's type (cpu or cuda), and a notice, if any.

    bf16 without its instructions is several times slower than fp32 on a CPU.
    """
    fast = _gpu_has_bf16() if device == "cuda" else _cpu_has_bf16(cpuinfo)
    machine = "GPU" if device == "cuda" else "CPU"

    if asked == "auto":
        chosen: Precision = "bf16" if fast else "fp32"
        has = "has" if fast else "has no"
        return chosen, f"precision auto: {chosen}, since this {machine} {has} bf16 instructions."
    if asked == "bf16" and not fast:
        notice = (
            f"This {machine} has no bf16 instructions: precision fp32 or auto is several times"
            " faster."
        )
        return asked, notice

    return asked, None


def _cpu_has_bf16(cpuinfo: Path) -> bool:
    """True if the first processor that Linux lists has the instructions; False without a list."""
    try:
        with cpuinfo.open("rb") as file:
            text = file.read(_MAX_BYTES).decode(errors="replace")
    except OSError:
        return False

    for line in text.splitlines():
        name, _, flags = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return not _BF16_FLAGS.isdisjoint(flags.split())
    return False


def _gpu_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
