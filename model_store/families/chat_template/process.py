"""A chat template, rendered in a process of its own: jobs as JSON on standard input, prompts out.

A template is code of a folder, and Jinja's sandbox bounds neither its time nor its memory, so the
parent starts this module as a program, and the kernel ends it at its limits. Depends on Jinja
alone. Invariant: a rendering in which the template read a text of the pair says so, so that a
prompt which is kept for other texts never depends on the text that it was rendered with.

Standard input is `{"template", "cpu_seconds", "jobs": [{"messages", "variables"}]}`, where a
message is `[role, content]`, and content is a text or a list of texts and nulls, each null for an
image.
Standard output is `{"results"}`, which has `{"text", "reads", "replaces"}` or `{"error"}` for each
job, or `{"error"}` for all.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterable
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import sync_do_join
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_eval_context

from model_store.families.chat_template.user_text import (
    Length,
    Picture,
    Refused,
    UserText,
    reads,
    replaces,
)

MEMORY_BYTES = 2**29
MAX_CHARACTERS = 2**18
"""Characters that one job may print, or join on the way."""
MAX_PRINTED = 2**25
"""Characters of all jobs of one input."""
_MAX_MESSAGE = 200


def joined(pieces: Iterable[Any]) -> str:
    """Texts as one, which is the pair's where one of them is."""
    texts: list[str] = []
    characters, own = 0, False
    for piece in pieces:
        text = piece if isinstance(piece, str) else str(piece)
        own = own or isinstance(text, UserText)
        characters += str.__len__(text)
        if characters > MAX_CHARACTERS:
            raise Refused(f"it prints more than {MAX_CHARACTERS} characters")
        texts.append(text)

    whole = "".join(texts)
    return UserText(whole) if own else whole


class Generation(Extension):
    """The block `generation` of transformers' templates, which prints its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own form

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as transformers configures it for chat templates, without chance and without a clock.

    `~` and `join` give texts that are known to have a text of the pair in them.
    """

    intercepted_binops = frozenset(("*", "**", "%"))
    concat = staticmethod(joined)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, LoopControlExtension]
        )
        for chance in ("random", "pprint", "urlize", "xmlattr", "filesizeformat"):
            del self.filters[chance]
        del self.globals["lipsum"]
        self.filters |= {"tojson": to_json, "join": join, "length": length, "count": length}
        self.tests["sequence"] = is_sequence
        self.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "*" and not _is_number(left, right)):
            raise Refused(f"it computes with {operator}")
        value = super().call_binop(context, operator, left, right)
        values = right if isinstance(right, tuple) else (right,)
        own = any(isinstance(part, UserText) for part in values)
        return UserText(value) if own and isinstance(value, str) else value


def _is_number(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _with_joins(node: nodes.Node) -> None:
    """Replace each `a ~ b` below a node by `[a, b] | join`."""
    for field, value in node.iter_fields():
        if isinstance(value, list):
            setattr(node, field, [_replaced(item) for item in value])
        else:
            setattr(node, field, _replaced(value))


def _replaced(value: Any) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _with_joins(value)
    if not isinstance(value, nodes.Concat):
        return value
    items = nodes.List(value.nodes, lineno=value.lineno)
    return nodes.Filter(items, "join", [], [], None, None, lineno=value.lineno)


@pass_eval_context
def join(context: nodes.EvalContext, value: Any, separator: str = "", attribute: Any = None) -> str:
    """Jinja's filter, over texts of the pair."""
    items = list(value)
    texts: list[Any] = []
    for item in items:
        read = context.environment.getitem(item, attribute) if attribute is not None else item
        texts.append(read if isinstance(read, str) else str(read))
    whole: str = sync_do_join(context, texts, separator)
    own = any(isinstance(text, UserText) for text in (separator, *texts))
    if len(whole) > MAX_CHARACTERS:
        raise Refused(f"it joins more than {MAX_CHARACTERS} characters")
    return UserText(whole) if own else whole


def length(value: Any) -> int:
    """Jinja's filter, over texts of the pair."""
    return Length(str.__len__(value)) if isinstance(value, UserText) else len(value)


def is_sequence(value: Any) -> bool:
    """Jinja's test, which asks a text of the pair for nothing."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
    sort_keys: bool = False,
) -> str:  # fmt: skip
    """transformers' filter: JSON without escapes of HTML."""
    reads.add("tojson")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=str,
    )


def raise_exception(message: object) -> None:
    """The function by which templates refuse messages."""
    raise TemplateError(str(message))


def strftime_now(form: str) -> str:
    """transformers' function for the day, which no score may depend on."""
    raise Refused("it asks for the date")


def message(stated: tuple[str, Any]) -> dict[str, Any]:
    """A message as sentence-transformers makes it of one side of a pair."""
    role, content = stated
    if isinstance(content, str):
        return {"role": role, "content": UserText(content)}

    parts: list[dict[str, Any]] = []
    for part in content:
        kind, value = ("image", Picture()) if part is None else ("text", UserText(part))
        parts.append({"type": kind, kind: value})
    return {"role": role, "content": parts}


def result(template: Any, job: dict[str, Any]) -> dict[str, Any]:
    """A job's prompt, or the clause that says why there is none."""
    reads.clear()
    replaces.clear()
    try:
        text = template.render(
            messages=[message(stated) for stated in job["messages"]], **job["variables"]
        )
    except Exception as error:  # a template can raise any
        return {"error": sentence(error)}
    return {"text": str.__str__(text), "reads": sorted(reads), "replaces": replaces[:]}


def results(template: Any, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each job's result."""
    printed = 0
    answers: list[dict[str, Any]] = []
    for job in jobs:
        answer = result(template, job)
        printed += len(answer.get("text", ""))
        if printed > MAX_PRINTED:
            answer = {"error": f"it prints more than {MAX_PRINTED} characters in all"}
        answers.append(answer)
    return answers


def sentence(error: Exception) -> str:
    """An exception as a clause of one line."""
    if isinstance(error, MemoryError):
        return f"it needs more than {MEMORY_BYTES} bytes of memory"
    text = " ".join(str(error).split())[:_MAX_MESSAGE].rstrip(".")
    return text if isinstance(error, Refused) else f"{type(error).__name__}: {text}"


def main() -> None:
    """Answer the input of one parent."""
    asked = json.load(sys.stdin)
    limits = (
        (resource.RLIMIT_CPU, asked["cpu_seconds"]),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    )
    for limit, value in limits:
        resource.setrlimit(limit, (value, value))

    environment = Sandbox()
    try:
        tree = environment.parse(asked["template"])
        _with_joins(tree)
        template = environment.from_string(tree)
    except Exception as error:  # also what Python says to code that it cannot compile
        answer: dict[str, Any] = {"error": sentence(error)}
    else:
        answer = {"results": results(template, asked["jobs"])}
    json.dump(answer, sys.stdout)
