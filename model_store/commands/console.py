"""The terminal of every command of `gmr`: exit codes, one sentence for a refusal, and progress.

Does not depend on what a command does. Invariant: the exit code is 0 where the work is done, 1
where it could not be done, 2 where the command line or a setting is wrong whatever the machine
holds, and 130 where Ctrl-C ended it; a refusal is one sentence on standard error.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

EXTRAS = {
    "torch": "torch",
    "transformers": "torch",
    "tokenizers": "torch",
    "safetensors": "torch",
    "huggingface_hub": "torch",
    "numpy": "torch",
    "fsspec": "torch",
    "jinja2": "torch",
    "regex": "torch",
    "vllm": "vllm",
    "opentelemetry": "otel",
    "accelerate": "train",
    "bm25s": "train",
    "faiss": "train",
    "matplotlib": "train",
    "peft": "train",
    "pyarrow": "train",
    "scipy": "train",
    "yaml": "train",
    "sentence_transformers": "train",
    "datasets": "train-erank",
    "trl": "train-erank",
    "mteb": "eval",
    "tensorboard": "tensorboard",
    "ray": "cluster",
    "psutil": "dev",
}
"""The extra of this package that installs a module."""

Advance = Callable[[int], None]
"""Called with the amount of work that was done since the last call."""

_LINE_EVERY = 100_000
"""Units between two lines of progress where the total is unknown."""


def fail(sentence: str) -> NoReturn:
    """Print why the work could not be done, and exit with 1."""
    typer.echo(sentence, err=True)
    raise typer.Exit(FAILED)


def misuse(sentence: str) -> NoReturn:
    """Print what is wrong with the command line or a setting, and exit with 2."""
    typer.echo(sentence, err=True)
    raise typer.Exit(MISUSED)


@contextmanager
def refusing(*errors: type[Exception], usage: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn exceptions of the block into their text and an exit code.

    Those of `usage` exit with 2. `errors` exit with 1, or with their own `exit_code` where they
    have one.
    """
    try:
        yield
    except usage as error:
        misuse(str(error))
    except errors as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(getattr(error, "exit_code", FAILED)) from None


def missing_package(needs: str, module: str) -> str:
    """The sentence for a package that is not installed: what needs it, and the line that installs
    it."""
    return f"{needs} needs {module}: pip install 'gmr-rerank[{EXTRAS[module]}]'."


def check_writable(path: Path) -> None:
    """Exit with 1 where a file cannot be written to `path`.

    Commands call this before work whose result the file is to hold.
    """
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        fail(sentence_of(error))
    if not existed:
        path.unlink(missing_ok=True)


def sentence_of(error: OSError) -> str:
    """An operating system's error as a sentence, with the file's name."""
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return f"{error.filename}: {reason}." if error.filename else f"{reason}."


@contextmanager
def progress(title: str, total: int | None = None, *, unit: str) -> Iterator[Advance]:
    """Show on standard error how much of `total` is done.

    A terminal shows a bar. A log gets a line at each tenth of `total`, or at every 100,000 units
    where the total is unknown. The unit `bytes` is shown as megabytes.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _ProgressLines(title, total, unit)
        return

    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


class _ProgressLines:
    """Progress for a log: a line whenever enough was done since the last one."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = self._lines = 0

    def __call__(self, count: int) -> None:
        self._done += count
        if self._total is None:
            lines = self._done // _LINE_EVERY
        else:
            lines = 10 * self._done // max(self._total, 1)

        if lines > self._lines:
            self._lines = lines
            typer.echo(f"{self._title}: {self._amount()}", err=True)

    def _amount(self) -> str:
        scale, unit = (1e6, "MB") if self._unit == "bytes" else (1, self._unit)
        done = f"{self._done / scale:,.0f}"
        if self._total is None:
            return f"{done} {unit}"
        return f"{done} of {self._total / scale:,.0f} {unit}"


class Commands(TyperGroup):
    """The root of `gmr`: turns every exception that a command lets through into an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; only the exceptions of the command line itself pass."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except ModuleNotFoundError as missing:
            module = (missing.name or "").partition(".")[0]
            if module not in EXTRAS:
                _report_defect()
            fail(missing_package(f"gmr {ctx.invoked_subcommand}", module))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            fail(sentence_of(error))
        except MemoryError:
            fail("There is not enough memory.")
        except Exception as error:
            if type(error).__module__.startswith("typer"):
                raise
            _report_defect()


def _report_defect() -> NoReturn:
    """Print the traceback of a defect of this package, and exit with 1."""
    traceback.print_exc()
    fail("This is a defect of gmr: please report it, with the lines above.")
