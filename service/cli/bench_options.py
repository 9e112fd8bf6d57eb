"""The options of `gmr bench`: their types, bounds and help.

Depends on typer alone. Invariant: an option's help and bounds are written here, once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        help=(
            "Name or folder of a model, 'generated' (random weights, about 40 M parameters), or"
            " '3b', '7b' (real shapes, no weights)."
        )
    ),
]
Contenders = Annotated[
    str | None,
    typer.Option(
        help=(
            "Servers and loops to compare, comma-separated, the reference first: ours, vllm,"
            " vllm-tuned, torch, naive, naive-last; default: all but the last, and ours,vllm-tuned"
            " for D and DI."
        )
    ),
]
Workloads = Annotated[
    str,
    typer.Option(
        help="Workloads to run, of T, Q, L, C, R; or of D, DI, whose documents come back."
    ),
]
Prompts = Annotated[
    str, typer.Option(help="Sides that prompts of D and DI begin with, of document, query.")
]
Pool = Annotated[
    int, typer.Option(help="Documents that come back, in D and DI.", min=1, max=100_000)
]
PythonVllm = Annotated[
    Path | None,
    typer.Option(
        help="Python interpreter with vLLM; default: .venv-vllm/bin/python, or the current one."
    ),
]
WorstRequests = Annotated[
    bool,
    typer.Option(
        "--worst-requests",
        help="Instead: send the most expensive requests that the limits allow, one of each shape.",
    ),
]
Rehearsed = Annotated[
    bool,
    typer.Option(
        "--rehearsal",
        help=(
            "Instead: make a checkpoint of a size (generated, 3b or 7b) with random weights,"
            " publish it, serve it, and measure its start by part."
        ),
    ),
]
RehearsalFolder = Annotated[
    Path | None,
    typer.Option(help="Folder for --rehearsal, which is kept; default: one that is removed."),
]
RehearsalTokenizer = Annotated[
    Path | None,
    typer.Option(help="tokenizer.json for --rehearsal, such as Qwen's; default: gmr-tiny's."),
]
Samples = Annotated[int, typer.Option(help="Paired samples per workload.", min=1, max=1000)]
Documents = Annotated[int, typer.Option(help="Documents per request.", min=1, max=1000)]
Callers = Annotated[
    str, typer.Option(help="Numbers of concurrent callers; loops are measured with 1.")
]
DType = Annotated[
    str | None,
    typer.Option(help="float32 or bfloat16; default: float32 for gmr-tiny, else bfloat16."),
]
Quantization = Annotated[
    str | None,
    typer.Option(help="vLLM's quantisation, such as fp8, for every contender with vLLM."),
]
Engine = Annotated[
    str, typer.Option(help="Engine of every measurement except the comparison: vllm or torch.")
]
Workers = Annotated[
    int,
    typer.Option(
        help="Workers of our service in the comparison, on one device: under MPS where it is.",
        min=1,
        max=8,
    ),
]
Overhead = Annotated[
    bool,
    typer.Option("--overhead", help="Instead: measure the time that the gateway adds to a call."),
]
Observability = Annotated[
    bool,
    typer.Option("--observability", help="Instead: measure the cost of metrics, logs and traces."),
]
Soak = Annotated[
    int,
    typer.Option(
        help="Instead: send this many requests, and measure the growth of memory.",
        min=0,
        max=10_000_000,
    ),
]
Routing = Annotated[
    bool,
    typer.Option("--routing", help="Instead: measure splitting and affinity with two workers."),
]
StoredImages = Annotated[
    bool,
    typer.Option(
        "--stored-images",
        help="Instead: measure pictures that are put once against base64 in each request.",
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        help=(
            "Instead: measure cached requests a second of a gateway of this many processes, and of"
            " one."
        ),
        min=0,
        max=64,
    ),
]
Faults = Annotated[
    bool,
    typer.Option(
        "--faults", help="Instead: make workers and Redis fail, and measure what callers see."
    ),
]
Priority = Annotated[
    bool,
    typer.Option(
        "--priority",
        help="Instead: measure requests alone and beside a stream, which is to wait for them.",
    ),
]
Training = Annotated[
    bool,
    typer.Option(
        "--training",
        help=(
            "Instead: measure training steps, with each pair as a row and with a query computed"
            " once a group."
        ),
    ),
]
Gpu = Annotated[
    bool,
    typer.Option(
        "--gpu",
        help=(
            "Instead: the first minutes on a GPU, step by step, at most 3 minutes each; with"
            " --device cpu a rehearsal of them. --output is written after each step, and a file"
            " that exists is continued."
        ),
    ),
]
Skip = Annotated[str, typer.Option(help="Steps that --gpu leaves out, by name, comma-separated.")]
Budget = Annotated[
    float | None,
    typer.Option(help="Seconds for all steps of --gpu together.", min=30, max=86_400),
]
Shapes = Annotated[
    str, typer.Option(help="Shapes for --worst-requests, comma-separated; default: all.")
]
Output = Annotated[
    Path | None,
    typer.Option(help="JSON file for the results; a chart is written beside it (PNG)."),
]
