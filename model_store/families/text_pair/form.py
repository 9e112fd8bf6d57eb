"""The form in which a tokenizer joins two texts to a pair: control tokens around them, and types.

Depends on the post-processor of a `tokenizer.json`, and on the switches of `tokenizer_config.json`
that transformers lets override it. Invariant: ids and types of an ordinary pair equal those of
`AutoTokenizer(query, document)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

_QUERY, _DOCUMENT = "A", "B"


class UnknownForm(ValueError):
    """A post-processor whose pairs are not understood; the text says why."""


@dataclass(frozen=True, slots=True)
class PairForm:
    """A pair in two halves: the query's, then the document's, each with control tokens around.

    All tokens of a half have one type.
    """

    before_query: tuple[int, ...]
    after_query: tuple[int, ...]
    before_document: tuple[int, ...]
    after_document: tuple[int, ...]
    types: tuple[int, int] = (0, 0)

    @property
    def specials(self) -> int:
        """The number of control tokens of a pair."""
        halves = self.before_query, self.after_query, self.before_document, self.after_document
        return sum(map(len, halves))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A control token, as its ids, or one of the two texts."""

    text: str
    ids: tuple[int, ...]
    type: int


def pair_form(
    post_processor: Mapping[str, Any], settings: Mapping[str, Any], controls: Mapping[str, int]
) -> PairForm:
    """The form of a tokenizer; raises `UnknownForm`.

    `settings` is `tokenizer_config.json`, and `controls` has the ids of control tokens.
    """
    if "add_bos_token" in settings or "add_eos_token" in settings:
        return _halves(_between_ends(settings, controls))

    rules = [rule for rule in _rules(post_processor) if rule.get("type") != "ByteLevel"]
    if not rules:
        return _halves([_text(_QUERY, 0), _text(_DOCUMENT, 1)])
    if len(rules) > 1:
        raise UnknownForm("its tokenizer.json has several post-processors")

    (rule,) = rules
    match rule.get("type"):
        case "TemplateProcessing":
            return _halves(_template(rule))
        case "BertProcessing":
            return _halves(_classic(rule, separators=1, document_type=1))
        case "RobertaProcessing":
            return _halves(_classic(rule, separators=2, document_type=0))
    raise UnknownForm(f"its tokenizer.json has the post-processor {rule.get('type')!r:.40}")


def read_by_decoder(form: PairForm, padding: object) -> PairForm:
    """The form up to the token at which a causal decoder's head reads the score.

    That is the last one which is not `padding`, the id in `config.json`; some checkpoints end pairs
    with the same token that they are padded with.
    """
    after = form.after_document
    while after and after[-1] == padding:
        after = after[:-1]
    return replace(form, after_document=after)


def _rules(post_processor: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A sequence of post-processors one by one."""
    if post_processor.get("type") == "Sequence":
        return list(post_processor.get("processors", ()))
    return [post_processor] if post_processor else []


def _template(rule: Mapping[str, Any]) -> list[_Piece]:
    try:
        pieces: list[_Piece] = []
        for entry in rule["pair"]:
            ((kind, stated),) = entry.items()
            if kind == "Sequence":
                pieces.append(_text(stated["id"], stated["type_id"]))
                continue
            ids = rule["special_tokens"][stated["id"]]["ids"]
            pieces.append(_Piece("", tuple(map(int, ids)), int(stated["type_id"])))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UnknownForm(
            "the pair of its tokenizer.json's post-processor cannot be read"
        ) from None
    return pieces


def _classic(rule: Mapping[str, Any], *, separators: int, document_type: int) -> list[_Piece]:
    """`[CLS] query [SEP] document [SEP]`, with one separator in the middle or two."""
    try:
        first, separator = (int(rule["cls"][1]),), (int(rule["sep"][1]),)
    except (IndexError, KeyError, TypeError, ValueError):
        raise UnknownForm("its tokenizer.json's post-processor names no cls and sep") from None

    return [
        _Piece("", first, 0),
        _text(_QUERY, 0),
        _Piece("", separator * separators, 0),
        _text(_DOCUMENT, document_type),
        _Piece("", separator, document_type),
    ]


def _between_ends(settings: Mapping[str, Any], controls: Mapping[str, int]) -> list[_Piece]:
    """Each text between a first and a last token, where the settings ask for them."""
    pieces: list[_Piece] = []
    for text, kind in ((_QUERY, 0), (_DOCUMENT, 1)):
        first = _end(settings, controls, "bos_token")
        last = _end(settings, controls, "eos_token")
        pieces += [_Piece("", first, kind), _text(text, kind), _Piece("", last, kind)]
    return pieces


def _end(settings: Mapping[str, Any], controls: Mapping[str, int], name: str) -> tuple[int, ...]:
    """The ids of a token that the settings name, where they ask for it."""
    if not settings.get(f"add_{name}"):
        return ()

    token = settings.get(name)
    content = token.get("content") if isinstance(token, Mapping) else token
    if not content:
        return ()
    if content not in controls:
        raise UnknownForm(
            f"its tokenizer_config.json adds {content!r:.40}, which is no token of it"
        )
    return (controls[content],)


def _text(name: str, kind: int) -> _Piece:
    return _Piece(name, (), kind)


def _halves(pieces: Sequence[_Piece]) -> PairForm:
    """The form of a list of pieces; raises `UnknownForm` unless the query comes first."""
    texts = [piece for piece in pieces if piece.text]
    if [piece.text for piece in texts] != [_QUERY, _DOCUMENT]:
        raise UnknownForm("its tokenizer.json does not join a pair as query, then document")

    query, document = texts
    first, second = pieces.index(query), pieces.index(document)
    start = next(
        index
        for index in range(first, second + 1)
        if index == second or pieces[index].type != query.type
    )
    if {piece.type for piece in pieces[:start] if piece.ids} - {query.type}:
        raise UnknownForm("its tokenizer.json gives the tokens of a query several types")
    if {piece.type for piece in pieces[start:] if piece.ids} - {document.type}:
        raise UnknownForm("its tokenizer.json gives the tokens of a document several types")

    return PairForm(
        _ids(pieces[:first]),
        _ids(pieces[first + 1 : start]),
        _ids(pieces[start:second]),
        _ids(pieces[second + 1 :]),
        (query.type, document.type),
    )


def _ids(pieces: Iterable[_Piece]) -> tuple[int, ...]:
    ids: tuple[int, ...] = ()
    for piece in pieces:
        ids += piece.ids
    return ids
