"""`gmr bench --rehearsal`: a checkpoint of real size, from its making to its first request.

Depends on the `gmr` command line and on process trees, on nothing inside the service. Invariant:
what was made is removed at the end, unless a folder was named for it; each program has ended by
then.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from model_store.checkpoint import SHIPPED
from model_store.commands.console import progress
from model_store.families.tokens import TokenizerMismatch
from model_store.folders.weights import INDEX
from service.bench import calls
from service.bench.machine import describe
from service.bench.plan import BenchRefused, Plan
from service.bench.programs import Program, ProgramFailed, cleaning_up, started
from service.bench.rehearsal.checkpoint import weight_bytes, write_folder, write_weights
from service.bench.rehearsal.memory import MemoryPeak, sampled
from service.bench.rehearsal.start import parts
from service.bench.results import write_report
from service.bench.service import environment_of, gmr, inherited_environment, is_ready

_PAIRS = 9
"""Golden pairs: one of each kind of pair that a GMR reads."""
_DOCUMENT = "A red circle is to the left of two blue squares. "


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The files of a rehearsal: the folder that everything is made in, or None for one that is
    removed, and the tokenizer of the checkpoint, or None for gmr-tiny's."""

    folder: Path | None = None
    tokenizer: Path | None = None


def run_rehearsal(plan: Plan, rehearsal: Rehearsal) -> int:
    """Make, publish, serve, print a table and write JSON; returns 0. Raises as `run_bench` does."""
    console = Console()
    with cleaning_up(), ExitStack() as stack:
        folder = rehearsal.folder
        if folder is None:
            scratch = tempfile.TemporaryDirectory(prefix="gmr-rehearsal-")
            folder = Path(stack.enter_context(scratch))
        folder.mkdir(parents=True, exist_ok=True)
        report = _rehearse(plan, folder, rehearsal.tokenizer)

    console.print(_table(report))
    if plan.output:
        write_report({**describe(plan), **report}, plan.output)
    return 0


def _rehearse(plan: Plan, folder: Path, tokenizer: Path | None) -> dict[str, Any]:
    report: dict[str, Any] = {"model": plan.model, "engine": plan.engine}
    made = folder / f"gmr-{plan.model}"
    report["made_seconds"] = _make(plan, made, tokenizer)
    report["weight_bytes"] = weight_bytes(made)

    served = made
    if plan.engine == "torch":
        served = folder / f"gmr-{plan.model}-published"
        if not served.exists():
            report["publishing"] = _publish(made, served, folder)
    return report | _serve(plan, served, folder)


def _make(plan: Plan, made: Path, tokenizer: Path | None) -> float:
    """Write the checkpoint, unless it is there already; returns the seconds."""
    if (made / INDEX).exists():
        return 0.0

    begin = time.perf_counter()
    try:
        write_folder(SHIPPED / "gmr-tiny", made, plan.model, tokenizer)
    except TokenizerMismatch as error:
        raise BenchRefused(f"{tokenizer}: {error}.") from None
    with progress(f"making {made.name}", weight_bytes(made), unit="bytes") as advance:
        write_weights(made, advance=advance)
    return time.perf_counter() - begin


def _publish(made: Path, published: Path, folder: Path) -> dict[str, Any]:
    """Golden pairs and a manifest, by the command that people type."""
    command = [sys.executable, "-m", "service.cli", "models", "inspect", str(made)]
    command += ["--golden", str(_PAIRS), "--output", str(published), "--json"]
    begin = time.perf_counter()
    with started("publishing", command, inherited_environment(), folder / "publish.log") as program:
        with sampled(program) as peak:
            code = program.process.wait()
        if code:
            raise ProgramFailed(f"publishing ended with {code}.\n{program.tail()}")
    return {"seconds": time.perf_counter() - begin, "peak": asdict(peak), "pairs": _PAIRS}


def _serve(plan: Plan, served: Path, folder: Path) -> dict[str, Any]:
    """The start of a worker by part, its memory, and one request by a gateway."""
    environment = environment_of(plan, served, plan.engine)
    environment["RERANK_LOG_LEVEL"] = "info"
    python = plan.python_vllm if plan.engine == "vllm" else sys.executable
    worker_url, url = calls.free_url(), calls.free_url()
    with ExitStack() as stack:
        log = folder / "worker.log"
        begin = time.time()
        worker = stack.enter_context(
            started("worker", gmr(python, "worker", url=worker_url), environment, log)
        )
        with sampled(worker) as starting:
            worker.await_ready(lambda: is_ready(worker_url))
        seconds = parts(log.read_text(encoding="utf-8", errors="replace"), begin)

        command = gmr(sys.executable, "gateway", "--workers", worker_url, url=url)
        gateway = stack.enter_context(
            started("gateway", command, environment, folder / "gateway.log", children="decoders")
        )
        gateway.await_ready(lambda: is_ready(url))
        request = _ask(url, worker)

    return {
        "start_seconds": seconds,
        "ready_seconds": sum(seconds.values()),
        "start_peak": asdict(starting),
        "request": request,
    }


def _ask(url: str, worker: Program) -> dict[str, Any]:
    """One request of four documents: two texts, a picture, and a picture with a text."""
    picture = _picture()
    documents: list[Any] = [_DOCUMENT * 10, {"image": picture}]
    documents += [{"text": _DOCUMENT, "image": picture}, _DOCUMENT]
    body = json.dumps({"query": "two blue squares", "documents": documents}).encode()
    with sampled(worker) as peak:
        begin = time.perf_counter()
        answer = json.loads(calls.post(url, "/rerank", body))
        seconds = time.perf_counter() - begin
    return {
        "documents": len(answer["results"]),
        "seconds": seconds,
        "prompt_tokens": answer["usage"]["prompt_tokens"],
        "peak": asdict(peak),
    }


def _picture() -> str:
    """A page of 784 x 1008 pixels, which is about 1,000 tokens, in base64."""
    picture = Image.new("RGB", (784, 1008), "white")
    draw = ImageDraw.Draw(picture)
    for row in range(40, 980, 24):
        draw.line((40, row, 744, row), fill="black", width=2)
    draw.ellipse((300, 300, 500, 500), fill="red")
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()


def _table(report: dict[str, Any]) -> Table:
    weights = report["weight_bytes"]
    table = Table("part", "time", "peak memory", box=None)
    table.title = f"{report['model']} on {report['engine']}: {weights / 1e9:.2f} GB of weights"
    table.add_row("making the checkpoint", f"{report['made_seconds']:.1f} s", "")
    if publishing := report.get("publishing"):
        name = f"publishing it with {publishing['pairs']} golden pairs"
        table.add_row(name, f"{publishing['seconds']:.1f} s", _memory(publishing["peak"], weights))
    for part, seconds in report["start_seconds"].items():
        table.add_row(f"start: {part}", f"{seconds:.1f} s", "")
    peak = _memory(report["start_peak"], weights)
    table.add_row("start, together", f"{report['ready_seconds']:.1f} s", peak)
    request = report["request"]
    name = f"a request of {request['documents']} documents, {request['prompt_tokens']} tokens"
    table.add_row(name, f"{request['seconds']:.1f} s", _memory(request["peak"], weights))
    return table


def _memory(peak: dict[str, int], weights: int) -> str:
    """Own memory and pages of files, against the weights."""
    counted = MemoryPeak(**peak)
    share = counted.own / weights
    return f"{counted.own / 1e9:.2f} GB ({share:.2f} x), files {counted.of_files / 1e9:.2f} GB"
