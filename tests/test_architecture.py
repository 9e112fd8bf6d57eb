"""The rules of the code: import contracts, budgets of length, and a map of the real tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import BY_CODE

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "service").rglob("*.py"), *(ROOT / "model_store").rglob("*.py")])
MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 60
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "manager", "handler", "misc"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function's name, and the lines of its body: a signature may be as long as it needs."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_the_import_contracts_hold() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_what_it_is_and_keeps_its_budget(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert path.stem not in VAGUE_NAMES
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    assert [name for name, lines in functions(path) if lines > MAX_FUNCTION_LINES] == []


def test_the_help_needs_no_heavy_import() -> None:
    heavy = (
        "import sys, service.cli.main; print(sorted({'torch', 'transformers', 'fastapi', 'httpx'} &"
        " set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", heavy], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


GATEWAY_ALONE = """
import sys

for name in ("torch", "transformers", "tokenizers", "safetensors", "numpy"):
    sys.modules[name] = None

from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings

create_gateway(GatewaySettings(), [])
print(*sorted(name for name in sys.modules if name.split(".")[0] == "model_store"))
"""


def test_the_gateway_runs_without_the_torch_extra_and_has_two_doors_into_model_store() -> None:
    run = subprocess.run(
        [sys.executable, "-c", GATEWAY_ALONE], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[2] for name in run.stdout.split()}
    rules = {name for name in loaded if name.partition(".")[0] == "cascades"}
    assert "cascades.keep_rule" in rules
    manifest = {"manifest", "files", "calibration", "calibration.description"}
    assert loaded - rules == {"", "families", "families.images", *manifest}


def test_every_error_has_a_status_and_a_sentence() -> None:
    for code, kind in BY_CODE.items():
        assert kind.code == code
        assert 400 <= kind.status < 600
        assert kind.message.endswith(".")


def drawn_tree() -> set[str]:
    """The paths of the map's tree: names by their indentation, folders ending in a slash."""
    block = re.search(
        r"```tree\n(.*?)```", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert block, "docs/architecture.md draws the tree in a block marked `tree`"
    paths: set[str] = set()
    stack: list[str] = []
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        stack = [*stack[:depth], name.rstrip("/")]
        if not name.endswith("/"):
            paths.add("/".join(stack))
    return paths


def test_the_map_draws_the_real_tree() -> None:
    real = {name_of(path) for path in SOURCES if path.name != "__init__.py"}
    drawn = {
        path for path in drawn_tree() if path.endswith(".py") and not path.startswith("tests/")
    }
    assert drawn == real
    assert all((ROOT / path).exists() for path in drawn_tree())


def constructed_in(path: Path) -> set[str]:
    """The names of this project's classes that a module constructs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("service."):
            ours.update(name.name for name in node.names if name.name[0].isupper())
        elif isinstance(node, ast.ClassDef):
            ours.add(node.name)

    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return ours & called


GATEWAY = ROOT / "service/gateway"
VALUES = {"ModelNames", "TlsFiles"}


@pytest.mark.parametrize(
    "path", sorted({*GATEWAY.rglob("*.py")} - {GATEWAY / "app.py"}), ids=name_of
)
def test_the_gateways_services_are_constructed_in_its_app_alone(path: Path) -> None:
    services = constructed_in(GATEWAY / "app.py") - VALUES
    assert {"Reranker", "RerankEndpoint", "Scoring", "WorkerPool", "Quotas"} <= services
    assert constructed_in(path) & services == set()


ONE_FAMILY = re.compile(
    r"model_store\.(families\.(gmr|\w+_reranker\w*|\w*erank|mxbai\w*)|networks\.(qwen\w+|text_decoders))"
)
"""Modules of one model family or of networks that it runs on."""
MAY_IMPORT_ONE_FAMILY = {
    # the two lists of what is known
    "model_store/families/catalogue.py",
    "model_store/networks/catalogue.py",
    # gmr-tiny, the data that it is made from, and the generated checkpoint of the bench
    "model_store/recipes/tiny/base.py",
    "model_store/recipes/mini/lengths.py",
    "model_store/recipes/mini/preparation.py",
    "model_store/recipes/tiny/document_first.py",
    "model_store/recipes/tiny/packed_batches.py",
    "model_store/recipes/tiny/publish.py",
    "model_store/recipes/tiny/tokenizer.py",
    "model_store/synthetic/cells.py",
    "model_store/synthetic/pictures.py",
    "service/bench/generated.py",
    # GME, a retriever on Qwen2-VL
    "model_store/retrieval/gme.py",
}


def imported_modules(path: Path) -> set[str]:
    """The modules that a module imports, and the names that it imports from packages."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules.update(f"{node.module}.{name.name}" for name in node.names)
    return modules


def test_only_a_few_modules_depend_on_one_family() -> None:
    """A further model family is one file, at most one network adapter, and its tests."""
    importers: set[str] = set()
    for path in SOURCES:
        inside = name_of(path).startswith(("model_store/families/", "model_store/networks/"))
        if inside and path.name != "catalogue.py":
            continue  # families and networks share constants with their kin
        if any(ONE_FAMILY.fullmatch(module) for module in imported_modules(path)):
            importers.add(name_of(path))
    assert importers == MAY_IMPORT_ONE_FAMILY


PUBLIC_IN_SPITE_OF_THEIR_NAME = {"_asdict", "_exit", "_fields", "_make", "_replace"}


def private_reads(path: Path) -> list[str]:
    """The private attributes of other objects that a module reads or writes, with their lines."""
    reads: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
            continue
        if node.attr.startswith("__") or node.attr in PUBLIC_IN_SPITE_OF_THEIR_NAME:
            continue
        if ast.unparse(node.value) not in ("self", "cls", "super()"):
            reads.append(f"{node.lineno}: {ast.unparse(node)}")
    return reads


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=name_of)
def test_tests_use_public_seams_only(path: Path) -> None:
    assert private_reads(path) == []
