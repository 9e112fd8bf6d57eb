"""The end of every command of `gmr`: its exit code, and one sentence on standard error.

Knows the command line alone. Invariant: the exit code is 0 where the work is done, 1 where it could
not be done, 2 where the command line or a setting is wrong whatever the machine holds, and 130
where Ctrl-C ended it.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
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
    "vllm": "vllm",
    "opentelemetry": "otel",
    "accelerate": "train",
    "bm25s": "train",
    "faiss": "train",
    "matplotlib": "train",
    "peft": "train",
    "pyarrow": "train",
    "yaml": "train",
    "sentence_transformers": "train",
    "tensorboard": "tensorboard",
    "ray": "cluster",
    "psutil": "dev",
}
"""The extra of this package that brings a module."""


def fail(sentence: str) -> NoReturn:
    """Say why it could not be done, and end with 1."""
    typer.echo(sentence, err=True)
    raise typer.Exit(FAILED)


def misuse(sentence: str) -> NoReturn:
    """Say what is wrong with the command line or a setting, and end with 2."""
    typer.echo(sentence, err=True)
    raise typer.Exit(MISUSED)


@contextmanager
def misusing(*refusals: type[Exception]) -> Iterator[None]:
    """End with 2 and the text of one of these exceptions, where the block raises it."""
    try:
        yield
    except refusals as refusal:
        misuse(str(refusal))


def missing_package(needs: str, module: str) -> str:
    """The sentence for a package that is not installed: what needs it, and the line that installs
    it."""
    return f"{needs} needs {module}: pip install 'gmr-rerank[{EXTRAS[module]}]'."


def check_writable(path: Path) -> None:
    """End with 1 where a file cannot be written to `path`. To be called before the work whose
    result it holds."""
    there = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        fail(sentence_of(error))
    if not there:
        path.unlink(missing_ok=True)


def sentence_of(error: OSError) -> str:
    """An operating system's error as a sentence, with the file's name."""
    said = os.strerror(error.errno) if error.errno else type(error).__name__
    return f"{error.filename}: {said}." if error.filename else f"{said}."


class Commands(TyperGroup):
    """The root of `gmr`: what a command does not answer itself ends here, by the module's
    invariant."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; every exception but the command line's own becomes a sentence and an
        exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except ModuleNotFoundError as missing:
            module = (missing.name or "").partition(".")[0]
            if module not in EXTRAS:
                _report()
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
            _report()


def _report() -> NoReturn:
    """A defect of our own: what Python says of it, and that it is one."""
    traceback.print_exc()
    fail("This is a defect of gmr: please report it, with the lines above.")
