"""The machine's rate of matrix products in a network's shapes, in operations a second: the ceiling
of any engine on it.

A program of its own, which runs in the engine's environment. Its arguments are DTYPE DEVICE THREADS
ROWS, and standard input has the shapes as JSON pairs (inputs, outputs). Invariant: the rate is that
of the fastest round of one product of each shape, since a slower round was disturbed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import torch

_ROUNDS = 15
_WARM_UPS = 2


def rate(shapes: Sequence[tuple[int, int]], dtype: torch.dtype, device: str, rows: int) -> float:
    """Operations a second of `[rows, inputs] @ [inputs, outputs]`, all shapes together."""
    left = [torch.randn(rows, inputs, device=device).to(dtype) for inputs, _ in shapes]
    right = [torch.randn(outputs, inputs, device=device).to(dtype) for inputs, outputs in shapes]
    operations = sum(2.0 * rows * inputs * outputs for inputs, outputs in shapes)

    for _ in range(_WARM_UPS):
        _seconds(left, right, device)
    return operations / min(_seconds(left, right, device) for _ in range(_ROUNDS))


def _seconds(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], device: str) -> float:
    """The time of one round."""
    start = time.perf_counter()
    for activations, weights in zip(left, right, strict=True):
        torch.nn.functional.linear(activations, weights)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print the rate."""
    dtype, device, threads, rows = sys.argv[1:5]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    shapes = [(inputs, outputs) for inputs, outputs in json.load(sys.stdin)]
    sys.stdout.write(json.dumps(rate(shapes, getattr(torch, dtype), device, int(rows))) + "\n")


if __name__ == "__main__":
    main()
