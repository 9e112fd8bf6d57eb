"""Parts of the text that all plans of `gmr size` have in common, and their JSON.

Does not depend on what is planned. Invariant: a rate that was not measured is said to be none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from model_store.sizing.network import NetworkCost
    from model_store.sizing.plan import Gpu


def heading(network: NetworkCost, gpu: Gpu) -> str:
    """The model and the GPU."""
    return (
        f"{network.name}: {network.parameters / 1e9:.2f} B parameters on {gpu.name.upper()}"
        f" ({gpu.memory} GB), bf16"
    )


def document_size(tokens: int, image_tokens: int) -> str:
    """The tokens of a document and of its image, if it has one."""
    return f"{tokens} tokens" + (f" and an image of {image_tokens}" if image_tokens else "")


def rate_source(gpu: Gpu, efficiency: float, *, measured: bool) -> str:
    """The source of a rate: a measurement, or a share of the vendor's figure."""
    if measured:
        return "as measured"
    return f"at {efficiency:.0%} of {gpu.bf16:,.0f} TFLOP/s, not measured"


def gb(count: int) -> str:
    """A number of bytes in GB."""
    return f"{count / 1e9:.1f} GB"


def duration(hours: float, unit: str = "") -> str:
    """A time in hours, or in minutes where it is less than one; `unit` stands before either."""
    return f"{hours:,.1f} {unit}hours" if hours >= 1 else f"{hours * 60:,.1f} {unit}minutes"


def print_json(network: NetworkCost, gpu: Gpu, **parts: Any) -> None:
    """Print a plan as JSON: the model, the GPU, and dataclasses by name."""
    import json
    from dataclasses import asdict

    described: dict[str, Any] = {
        "model": network.name,
        "parameters": network.parameters,
        "gpu": gpu.name,
    }
    described |= {name: asdict(part) for name, part in parts.items()}
    typer.echo(json.dumps(described, indent=2))
