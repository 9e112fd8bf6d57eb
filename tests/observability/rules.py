"""The rules of deploy/alerts/, read as data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "deploy" / "alerts").glob("*.yaml"))
Rule = dict[str, Any]


def rules_of(file: Path) -> Iterator[Rule]:
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
        yield from group["rules"]


def rules() -> Iterator[Rule]:
    for file in FILES:
        yield from rules_of(file)


ALERTS: dict[str, Rule] = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED: dict[str, Rule] = {rule["record"]: rule for rule in rules() if "record" in rule}
