"""Pairs of texts as a tokenizer joins them, for networks with a head of one score.

BERT and its kin read both texts at once, so nothing of a prompt can be shared between pairs; causal
decoders with such a head share the query. Depends on the tokenizer's files and on `config.json`,
not on weights. Invariant: ids and token types of an ordinary pair equal those of
`AutoTokenizer(query, document)`, and no text becomes a control token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from model_store.families.family import CacheableSide, ImageRules, SideRules
from model_store.families.original_tokenizer import refuse_other_pairs
from model_store.families.prompt import Item, NotRendered, Prompt, Rendering
from model_store.families.readout import ReadOut, ScoreHead
from model_store.families.recognition import (
    Description,
    FolderFacts,
    NetworkFacts,
    Rank,
    Recognition,
)
from model_store.families.renderer import Question, Renderer
from model_store.families.rows import Part, Row, RowEncoder, Run
from model_store.families.sentence_transformers.modules import CrossEncoderFiles, read_modules
from model_store.families.text_pair.form import (
    PairForm,
    UnknownForm,
    pair_form,
    read_by_decoder,
)
from model_store.families.text_pair.rendering import PairRendering
from model_store.families.text_pair.settings import (
    MAX_TOKENS,
    TOKENIZER_CONFIG,
    reads_messages,
    refuse_other_settings,
    refuse_silent_template,
    stated_max_tokens,
)
from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer
from model_store.json_files import read_json
from model_store.manifest import CheckpointUnusable, Manifest

_TEMPLATE = "pair"
_CHAINS = ((), ("Transformer",))
"""Modules of sentence-transformers: none listed, or the network alone."""
_ENCODERS = (
    "Albert",
    "Bert",
    "Camembert",
    "DebertaV2",
    "DistilBert",
    "Electra",
    "Ernie",
    "EuroBert",
    "MPNet",
    "ModernBert",
    "Roberta",
    "XLMRoberta",
)
_DECODERS = ("Gemma", "Llama", "Qwen2", "Qwen3")


class TextPair:
    """Reads text on both sides of a pair.

    `form` is the tokenizer's, and `causal` says that the network is a causal decoder. `prompt` is
    text that sentence-transformers puts before the query.
    """

    name: ClassVar[str] = "text-pair"
    architectures: ClassVar[Sequence[str]] = tuple(
        f"{kind}ForSequenceClassification" for kind in (*_ENCODERS, *_DECODERS)
    )
    readouts: ClassVar[Sequence[ReadOut]] = (ScoreHead(),)
    default_max_tokens: ClassVar[int] = MAX_TOKENS
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    query_side: ClassVar[SideRules] = SideRules()
    document_side: ClassVar[SideRules] = SideRules()
    images: ImageRules | None = None
    image_token_id: int | None = None
    label_ids: tuple[int, ...] = ()

    def __init__(
        self,
        tokenizer: LiteralTokenizer,
        form: PairForm,
        *,
        max_tokens: int,
        causal: bool = False,
        prompt: str = "",
    ) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.readout: ReadOut = ScoreHead()
        self.default_instruction = prompt
        self._form, self._causal = form, causal
        self._encoder = RowEncoder(tokenizer, None, max_tokens)

    @classmethod
    def recognise(cls, facts: FolderFacts) -> Recognition | None:
        """Recognised by the network's head, unless the folder has a template for its pairs."""
        if facts.network.architecture not in cls.architectures or reads_messages(facts):
            return None
        if _files(facts).chain not in _CHAINS:
            return None
        return Recognition(
            Rank.DESCRIBED, "its network has a head of one score, and its tokenizer joins pairs"
        )

    @classmethod
    def describe(cls, facts: FolderFacts) -> Description:
        """The manifest's fields, as sentence-transformers' `CrossEncoder` would choose them."""
        refuse_silent_template(facts)
        files = _files(facts)
        max_tokens = stated_max_tokens(facts, listed=bool(files.chain))
        stated = {"template", "read_out"}
        if files.chain:
            stated |= {"default_instruction", "transform"}
        if max_tokens < MAX_TOKENS:
            stated.add("max_tokens")
        return Description(
            template=_TEMPLATE,
            default_instruction=files.default_prompt,
            max_tokens=max_tokens,
            pixels=None,
            read_out=ScoreHead().name,
            transform=files.transform(facts.config),
            stated=frozenset(stated),
        )

    @classmethod
    def open(
        cls,
        manifest: Manifest,
        folder: Path,
        tokenizer: LiteralTokenizer,
        network: NetworkFacts,
        *,
        max_tokens: int | None = None,
    ) -> TextPair:
        """The family of a checkpoint; raises `CheckpointUnusable`."""
        name = manifest.name
        if manifest.template != _TEMPLATE or manifest.pixels is not None:
            raise CheckpointUnusable(
                f"{name}: a manifest of the family {cls.name} states the template {_TEMPLATE!r} and"
                " no pixel bounds."
            )
        if manifest.read_out not in ("", ScoreHead().name):
            raise CheckpointUnusable(
                f"{name}: the family {cls.name} has no read-out {manifest.read_out!r}; it has"
                f" {ScoreHead().name!r}."
            )

        if not network.causal and not (folder / TOKENIZER_FILE).is_file():
            # two files of a vocabulary are read by Qwen2's rules
            raise CheckpointUnusable(
                f"{name}: there is no {TOKENIZER_FILE}: transformers' AutoTokenizer of this folder"
                " saves one."
            )
        settings = read_json(name, folder, TOKENIZER_CONFIG) or {}
        try:
            form = pair_form(tokenizer.post_processor or {}, settings, tokenizer.controls)
        except UnknownForm as error:
            raise CheckpointUnusable(f"{name}: {error}, so that pairs cannot be joined.") from None
        refuse_other_settings(name, folder)
        if not _typed(network, settings, form):
            form = replace(form, types=(0, 0))
        family = partial(
            cls,
            tokenizer,
            max_tokens=manifest.max_tokens if max_tokens is None else max_tokens,
            causal=network.causal,
            prompt=manifest.default_instruction,
        )
        refuse_other_pairs(name, folder, family(form), typed=network.token_types > 1)
        if not network.causal:
            return family(form)
        padding = (read_json(name, folder, "config.json") or {}).get("pad_token_id")
        return family(read_by_decoder(form, padding))

    @property
    def cacheable_side(self) -> CacheableSide:
        """The query of a causal decoder; nothing of an encoder's prompt."""
        return "query" if self._causal else "none"

    @property
    def takes_instruction(self) -> bool:
        """True where the checkpoint was saved with a text that goes before the query."""
        return bool(self.default_instruction)

    @property
    def fingerprint(self) -> str:
        """Digest of the control tokens and types of a pair."""
        return hashlib.sha256(repr(self._form).encode()).hexdigest()

    def renderer(self, instruction: Item, query: Item, *, truncate: bool = True) -> Rendering:
        """An object that renders the documents of one question, some at a time."""
        before = "".join(part for part in instruction if isinstance(part, str))
        if not self.takes_instruction:
            before = ""
        question = Question(
            row=self._question_row(before, query),
            without_query=self._question_row(before, ()),
            document_row=self._document_row,
        )
        rendering = Renderer(self._encoder, question, self.max_tokens, truncate=truncate)
        return PairRendering(rendering, self._form.types)

    def render(
        self, instruction: Item, query: Item, documents: Sequence[Item], *, truncate: bool = True
    ) -> list[Prompt | NotRendered]:
        """A prompt or a refusal for each document, in order.

        A pair of more than `max_tokens` is cut, or refused where `truncate` is off: the document
        from its end, then the query, so that the document keeps a quarter of the budget.
        """
        return [*self.renderer(instruction, query, truncate=truncate).prompts(documents)]

    def _question_row(self, before: str, query: Item) -> Row:
        return [
            *self._form.before_query,
            Run(before).then(_text(query)),
            *self._form.after_query,
        ]

    def _document_row(self, document: Item) -> Row:
        row: list[Part] = [*self._form.before_document, Run("").then(_text(document))]
        return [*row, *self._form.after_document]


def _text(item: Item) -> str:
    """The texts of one side, joined; a family of text is never given images."""
    return "".join(part for part in item if isinstance(part, str))


def _files(facts: FolderFacts) -> CrossEncoderFiles:
    """The files of sentence-transformers in a folder, which may have no list of modules."""
    name, folder = facts.name, facts.folder
    return read_modules(name, folder) or CrossEncoderFiles(name, folder, (), {})


def _typed(network: NetworkFacts, settings: Mapping[str, Any], form: PairForm) -> bool:
    """True where tokenizer and network both know the types of a form."""
    inputs = settings.get("model_input_names", ["token_type_ids"])
    given = isinstance(inputs, list) and "token_type_ids" in inputs
    return given and max(form.types) < network.token_types
