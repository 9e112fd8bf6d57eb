"""A family's prompt as a Jinja chat template, by which other programs make the same prompt.

sentence-transformers and vLLM render a pair as messages of the roles `query` and `document`. The
instruction is a message of the role `system`, else the variable `instruction`, else the manifest's
default. Depends on the templates of families, and renders nothing. Invariant: for ordinary text the
rendered prompt has the token ids of the family's own.

These programs read pictures in the order of the messages, which is not that of a prompt that begins
with the document: a template of such a prompt refuses pictures on both sides unless the document's
message is the first.
"""

from __future__ import annotations

import json
import re

from model_store.families.catalogue import family_of
from model_store.families.prompt import Image
from model_store.families.template import TemplateFamily
from model_store.manifest import CheckpointUnusable, Manifest

CHAT_TEMPLATE = "chat_template.jinja"
_SLOT = re.compile(r"\{(\w+)\}")
_MESSAGES = frozenset(("instruction", "query", "document"))
"""Slots that a message fills."""

# Fixed text is in literals: Jinja drops the last line break of a bare text, and its options decide
# on spaces around blocks.
_BEGINNING = "{#- A pair as the prompt of the family "
_SIDE = """\
{%- macro side(role, kinds) -%}
{%- for message in messages if message.role == role -%}
{%- if message.content is string -%}
{{- message.content if "text" in kinds else "" -}}
{%- else -%}
{%- for part in message.content if part.type in kinds -%}
{{- IMAGE if part.type == "image" else part.text -}}
{%- endfor -%}
{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
"""
_REFUSAL = """\
{%- macro shows(role) -%}
{%- for message in messages if message.role == role -%}
{%- if message.content is string -%}
{{- "a picture" if IMAGE in message.content else "" -}}
{%- else -%}
{%- for part in message.content if part.type == "image" -%}a picture{%- endfor -%}
{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
{%- set pair = messages | selectattr("role", "in", ["query", "document"]) | list -%}
{%- if pair[0].role == "query" and shows("query") and shows("document") -%}
{{- raise_exception(SENTENCE) -}}
{%- endif -%}
"""
_SENTENCE = (
    "The prompt begins with the document, and pictures on both sides would be swapped: give"
    " messages with the document's first."
)
_IF_PAIR = '{%- if messages | selectattr("role", "in", ["query", "document"]) | list -%}\n'
_OTHERS = "{%- else -%}{# Messages that are no pair, by the chat template of the base. #}"
_END = "{% endif %}\n"


def pair_template(manifest: Manifest, others: str = "") -> str:
    """The chat template of a checkpoint.

    `others` is a chat template for messages that are no pair, such as the base's. Raises
    `CheckpointUnusable` for a family whose prompt it cannot express.
    """
    kind = expressible_family(manifest)
    if kind is None:
        raise CheckpointUnusable(
            f"{manifest.name}: no chat template can express the prompt of its family"
            f" {manifest.family}."
        )

    halves = "".join(kind.templates[manifest.template])
    pair = f"{_BEGINNING}{kind.name}, template {manifest.template}. -#}}\n{_side_of(kind)}"
    if kind.image_template and halves.index("{document}") < halves.index("{query}"):
        refusal = _REFUSAL.replace("SENTENCE", _literal(_SENTENCE))
        pair += refusal.replace("IMAGE", _literal(_placeholder(kind)))
    for index, piece in enumerate(_SLOT.split(halves)):
        is_slot = index % 2 == 1
        expression = _slot(piece, kind, manifest) if is_slot else _literal(piece)
        pair += f"{{{{- {expression} -}}}}\n"

    if not others:
        return pair
    return f"{_IF_PAIR}{pair}{_OTHERS}{others.removesuffix(chr(10))}{_END}"


def without_pairs(template: str) -> str:
    """The template for messages that are no pair, of a chat template that may be one of these."""
    if template.startswith(_IF_PAIR + _BEGINNING):
        return template.partition(_OTHERS)[2].removesuffix(_END)
    return "" if template.startswith(_BEGINNING) else template


def expressible_family(manifest: Manifest) -> type[TemplateFamily] | None:
    """The family of a manifest; None where a chat template cannot express its prompt.

    Of a rendered template all texts are encoded at once, its form is the same with and without an
    instruction, and it has neither ids without a text nor wordings that depend on the pair.
    """
    kind = family_of(manifest)
    if not (isinstance(kind, type) and issubclass(kind, TemplateFamily)):
        return None

    halves = "".join(kind.templates[manifest.template])
    expressible = "{|}" not in halves and _MESSAGES.issuperset(_SLOT.findall(halves))
    return kind if expressible and manifest.template not in kind.without_instruction else None


def _side_of(kind: type[TemplateFamily]) -> str:
    """The macro that renders one side of a pair."""
    return _SIDE.replace("IMAGE", _literal(_placeholder(kind)))


def _placeholder(kind: type[TemplateFamily]) -> str:
    """The tokens of a picture; empty where the family reads text only."""
    image = kind.image_template
    return f"{image.start}{image.placeholder}{image.end}" if image else ""


def _slot(name: str, kind: type[TemplateFamily], manifest: Manifest) -> str:
    """A slot as an expression."""
    if name == "instruction":
        default = _literal(manifest.default_instruction)
        return f'side("system", ["text"]) or instruction | default({default})'

    image = Image(b"", 1, 1)
    together = f'side("{name}", ["text", "image"])'
    apart = f'side("{name}", ["image"]) ~ side("{name}", ["text"])'
    found = apart if kind.arranged(("", image))[0] == image else together
    empty = "".join(part for part in kind.arranged(()) if isinstance(part, str))
    return f"({found}) or {_literal(empty)}" if empty else found


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
