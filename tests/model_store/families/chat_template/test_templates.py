"""Templates of all kinds: their prompts equal those that transformers renders and tokenizes, or the
model is refused with a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from model_store.checkpoint import resolve
from model_store.families.family import Family
from model_store.families.prompt import Prompt
from model_store.manifest import CheckpointUnusable
from tests.chat_rerankers import QWEN3_TEMPLATE, ZERANK_TEMPLATE, write_prompts

PAIRS = [
    ("how do I sort a list", "Sort the list in ascending order."),
    ("  blanks\n around \t", "\n\n a document\u3000\u2003\r\n"),
    ("", "no query"),
    ("no document", ""),
    (
        "\u00e0 la carte \u4e2d\u6587 e\u0301",
        "'quoted' \"text\" & <tags> {{ x }} \\n 50% \U0001f642",
    ),
    ("nothing but blanks", " \n "),
    ("\t", "a blank query"),
]
SAYS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TAIL = "<|im_start|>assistant\n\n"
QUERY = "(messages | selectattr('role', 'eq', 'query') | first).content"
DOCUMENT = "(messages | selectattr('role', 'eq', 'document') | first).content"
BOTH = f"<|im_start|>{{{{ {QUERY} }}}}<|im_end|>{{{{ {DOCUMENT} }}}}<|im_end|>"


def of_both(query: str, document: str) -> str:
    """A template with an expression for each side."""
    return f"<|im_start|>a\n{{{{ {query} }}}}<|im_end|>\nb\n{{{{ {document} }}}}<|im_end|>\n{TAIL}"


EXACT: dict[str, tuple[str, str]] = {
    "qwen3": (QWEN3_TEMPLATE, "query"),
    "zerank": (ZERANK_TEMPLATE, "query"),
    "chatml": (SAYS + TAIL, "query"),
    "a namespace": (
        "{% set ns = namespace(q='', d='') %}{% for m in messages %}{% if m['role'] == 'query' %}"
        "{% set ns.q = m['content'] %}{% elif m.role == 'document' %}{% set ns.d = m.content %}"
        "{% endif %}{% endfor %}Query: {{ ns.q }}\nDocument: {{ ns.d }}<|im_end|>" + TAIL,
        "query",
    ),
    "indexes": ("{{ messages[-2].content }}\n<doc> {{ messages[-1]['content'] }}" + TAIL, "query"),
    "loop.index": (
        "{% for m in messages %}[{{ loop.index }}/{{ loop.length }}] {{ m.content }}"
        "{% if not loop.last %}<|im_end|>{% endif %}{% endfor %}" + TAIL,
        "query",
    ),
    "trim": (of_both(f"{QUERY} | trim", f"{DOCUMENT}.strip()"), "query"),
    "one end": (of_both(f"{QUERY}.lstrip()", f"{DOCUMENT}.rstrip()"), "query"),
    "joined and trimmed": (
        of_both(f"('Query: ' ~ {QUERY}) | trim", f"('Passage: ' + {DOCUMENT} + ' ') | trim"),
        "query",
    ),
    "a trimmed block": (
        "{% filter trim %}\n Query: {{ "
        + QUERY
        + " }}{% endfilter %}<|im_end|>\n{% set d %} {{ "
        + DOCUMENT
        + " }}{% endset %}{{ d | trim }}"
        + TAIL,
        "query",
    ),
    "empty sides": (
        of_both(f"{QUERY} or 'NULL'", f"{DOCUMENT} if {DOCUMENT} | length > 0 else 'NULL'"),
        "query",
    ),
    "blank sides": (
        of_both(f"{QUERY} | trim or 'NULL'", f"{DOCUMENT} != '' and {DOCUMENT}"),
        "query",
    ),
    "formatted": (
        of_both(f"'Query: %s' % {QUERY}", f"'Document: {{}}'.format({DOCUMENT})"),
        "query",
    ),
    "a list joined": (
        of_both(
            f"['query:', {QUERY}] | join(' ')", "messages | map(attribute='content') | list | last"
        ),
        "query",
    ),
    "a macro": (
        "{% macro turn(role, text) %}<|im_start|>{{ role }}\n{{ text }}<|im_end|>\n{% endmacro %}"
        "{% for m in messages %}{{ turn(m.role, m.content) }}{% endfor %}" + TAIL,
        "query",
    ),
    "generation and breaks": (
        "{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}{{ m.content }}"
        "<|im_end|>{% if m.role == 'document' %}{% break %}{% endif %}{% endfor %}"
        "{% generation %}yes{% endgeneration %}",
        "query",
    ),
    "document first": (
        f"**Document**:\n{{{{ {DOCUMENT} }}}}\n**Query**:\n{{{{ {QUERY} }}}}<|im_end|>",
        "document",
    ),
    "query twice": (
        f"{{{{ {QUERY} }}}}<|im_end|>{{{{ {DOCUMENT} }}}}<|im_end|>{{{{ {QUERY} }}}}{TAIL}",
        "none",
    ),
    "nothing between": (f"{{{{ {QUERY} }}}}{{{{ {DOCUMENT} }}}}{TAIL}", "none"),
    "a blank between": (f"{{{{ {QUERY} }}}} {{{{ {DOCUMENT} }}}}{TAIL}", "none"),
    "a line break between": (f"{{{{ {QUERY} }}}}\n{{{{ {DOCUMENT} }}}}{TAIL}", "none"),
    "a word after a line break": (
        f"{{{{ {QUERY} }}}}\nDocument: {{{{ {DOCUMENT} }}}}{TAIL}",
        "query",
    ),
    "special tokens": (BOTH + "{{ eos_token }}{% if bos_token %}no{% endif %}", "query"),
    "no generation prompt": (
        BOTH + "{% if add_generation_prompt %}no{% endif %}{% if not tools %}yes{% endif %}",
        "query",
    ),
    "attributes": (
        "{{ '{0.__class__}'.format(messages) }}{{ messages.__class__ }}" + BOTH,
        "query",
    ),
    "kinds of content": (
        of_both(
            f"{QUERY} if {QUERY} is string else 'no'",
            f"'no' if {DOCUMENT} is mapping or {DOCUMENT} is none else {DOCUMENT}",
        ),
        "query",
    ),
}
STRUCTURED = {
    "parts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
        "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>{% endfor %}",
        "query",
    ),
    "the first part": (
        "{{ messages[-2].content[0].text }}\n<doc>{{ messages[-1]['content'][0]['text'] }}" + TAIL,
        "query",
    ),
    "a list": (
        "{{ messages[-2].content | selectattr('type', 'eq', 'text') | map(attribute='text') | join"
        " }}<|im_end|>{{ messages[-1].content | map(attribute='text') | join('\n') }}" + TAIL,
        "query",
    ),
    "is iterable": (
        "{% for m in messages %}{% if m.content is sequence and m.content is not string %}"
        "{{ m.content[0].text }}{% endif %}<|im_end|>{% endfor %}",
        "query",
    ),
}


def family_of(folder: Path, template: str, **changes: object) -> Family:
    return resolve(str(write_prompts(folder, template, **changes)), weights=False).family


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(write_prompts(tmp_path_factory.mktemp("own"), BOTH))


def theirs(
    tokenizer: Any, template: str, messages: Sequence[tuple[str, str]], *, structured: bool
) -> list[int]:
    """Ids as sentence-transformers has transformers make them."""
    conversation = [
        {"role": role, "content": [{"type": "text", "text": text}] if structured else text}
        for role, text in messages
    ]
    found: list[int] = tokenizer.apply_chat_template(
        conversation, chat_template=template, tokenize=True, return_dict=True
    )["input_ids"]
    return found


def ours(family: Family, instruction: str, query: str, document: str) -> list[int]:
    (prompt,) = family.render((instruction,), (query,), [(document,)])
    assert isinstance(prompt, Prompt)
    return list(prompt.ids)


@pytest.mark.parametrize("name", [*EXACT, *STRUCTURED])
def test_prompts_are_those_of_transformers(tmp_path: Path, tokenizer: Any, name: str) -> None:
    structured = name in STRUCTURED
    template, begins_with = (EXACT | STRUCTURED)[name]
    family = family_of(tmp_path, template, message_format="structured" if structured else "flat")
    assert family.cacheable_side == begins_with
    for query, document in PAIRS:
        pair = (("query", query), ("document", document))
        assert ours(family, "", query, document) == theirs(
            tokenizer, template, pair, structured=structured
        )
        if family.takes_instruction:
            with_system = (("system", "Find \u00e9 it. "), *pair)
            found = ours(family, "Find \u00e9 it. ", query, document)
            assert found == theirs(tokenizer, template, with_system, structured=structured)


REFUSED = {
    "a filter that changes": (of_both(QUERY, f"{DOCUMENT} | upper"), "it changes the texts"),
    "json": (of_both(QUERY, f"{DOCUMENT} | tojson"), "texts of a pair"),
    "escapes": (of_both(QUERY, f"{DOCUMENT} | e"), "it changes the texts"),
    "a slice": (of_both(QUERY, f"{DOCUMENT}[:100]"), "it changes the texts"),
    "a late slice": (
        of_both(QUERY, f"{DOCUMENT}[:100000]"),
        r"reads the texts of a pair \(getitem",
    ),
    "truncate": (of_both(QUERY, f"{DOCUMENT} | truncate(20000)"), "reads the texts of a pair"),
    "words": (of_both(QUERY, f"{DOCUMENT}.split() | join(' ')"), "texts of a pair"),
    "a length": (
        of_both(QUERY, f"{DOCUMENT} if {DOCUMENT} | length < 90000 else 'long'"),
        r"reads the texts of a pair \(length",
    ),
    "the length": (
        of_both(QUERY, f"{DOCUMENT} ~ ({DOCUMENT} | length)"),
        "texts of a pair|text around",
    ),
    "a search": (
        of_both(QUERY, f"{DOCUMENT} if 'secret' not in {DOCUMENT} else ''"),
        r"reads the texts of a pair \(contains",
    ),
    "a search in a joined text": (
        of_both(QUERY, f"'x' if 'secret' in (' ' ~ {DOCUMENT}) else {DOCUMENT}"),
        r"reads the texts of a pair \(contains",
    ),
    "a beginning": (
        of_both(QUERY, f"'x' if {DOCUMENT}.startswith('http') else {DOCUMENT}"),
        r"reads the texts of a pair \(startswith",
    ),
    "a comparison": (
        of_both(QUERY, f"'same' if {QUERY} == {DOCUMENT} else {DOCUMENT}"),
        "comparison",
    ),
    "a list of words": (
        of_both(QUERY, f"'x' if {DOCUMENT} in ['a', 'b'] else {DOCUMENT}"),
        "reads",
    ),
    "a key": (of_both(QUERY, f"{{'a': 1}}[{DOCUMENT}] or {DOCUMENT}"), "key"),
    "a replacement": (
        of_both(QUERY, f"{DOCUMENT} | replace('secret', '')"),
        "it replaces 'secret'",
    ),
    "a strip of letters": (of_both(QUERY, f"{DOCUMENT}.strip('#')"), r"reads the texts of a pair"),
    "letters": (of_both(QUERY, f"{DOCUMENT} | list | join"), "reads the texts of a pair"),
    "a sorted text": (of_both(QUERY, f"{DOCUMENT} | sort | join"), "texts of a pair"),
    "no document": (of_both(QUERY, QUERY), "it does not show the document"),
    "no query": (of_both("''", DOCUMENT), "it does not show the query"),
    "a chat template": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
        "it does not show the query",
    ),
    "raises": ("{{ raise_exception('Only\n user \\n turns') }}", "TemplateError: Only user"),
    "is wrong": ("{% for m in messages %}", "TemplateSyntaxError: Unexpected end of template"),
    "an unknown filter": ("{{ messages | shuffle }}", "No filter named 'shuffle'"),
    "an undefined value": ("{{ messages[7].content }}", "UndefinedError"),
    "the date": ("{{ strftime_now('%Y') }}" + BOTH, "it asks for the date"),
    "chance": ("{{ lipsum() }}" + BOTH, "'lipsum' is undefined"),
    "a chosen item": ("{{ ['a', 'b'] | random }}" + BOTH, "No filter named 'random'"),
    "attributes": ("{{ messages.__class__.__mro__ }}" + BOTH, "SecurityError|UndefinedError"),
    "a changed message": ("{{ messages.append('x') }}" + BOTH, "SecurityError|unsafe"),
    "a file": ("{% include '/etc/passwd' %}" + BOTH, "no loader|TypeError"),
    "a huge text": ("{{ 'a' * 10000000000 }}" + BOTH, r"it computes with \*"),
    "a huge number": ("{{ 10 ** 10 ** 10 }}" + BOTH, r"it computes with \*\*"),
    "much memory": ("{{ 'x'.ljust(10000000000) }}" + BOTH, "bytes of memory"),
    "100 MB": (
        "{% for i in range(100000) %}{{ 'x'.ljust(1000) }}{% endfor %}" + BOTH,
        "it prints more than 262144 characters",
    ),
    "a huge range": ("{% for i in range(10000000000) %}{% endfor %}" + BOTH, "Range too big"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}" + BOTH, "RecursionError"),
    "a loop": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + BOTH,
        "it does not end within 2 seconds of processor time",
    ),
    "a class's token": (BOTH + "{{ cls_token }}", "uses cls_token, which tokenizer_config.json"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_templates_are_refused_with_one_sentence(tmp_path: Path, name: str) -> None:
    template, sentence = REFUSED[name]
    with pytest.raises(CheckpointUnusable, match=sentence) as refusal:
        _ = family_of(tmp_path / "folder", template)
    assert str(refusal.value).startswith("folder: chat_template.jinja ")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400
