"""Texts whose tokens are frequent: the prompt's fixed text, instructions, questions, stop words.

Depends on a family's prompt and generated texts. Invariant: no passage is among them.
"""

from __future__ import annotations

from model_store.families.family import Family
from model_store.families.prompt import Prompt
from model_store.synthetic import cells
from model_store.synthetic.lexical import STOPWORDS, question_forms


def frequent_texts(family: Family) -> list[str]:
    """Texts as they stand in prompts; a word also as a later word of a text."""
    instruction, default = (cells.instruction("T-T", plain=plain) for plain in (False, True))
    (prompt,) = family.render((instruction,), (".",), [(".",)])
    assert isinstance(prompt, Prompt)
    fixed = family.tokenizer.decode([*prompt.prefix.ids, *prompt.suffix.ids])
    words = sorted(STOPWORDS)
    return [fixed, default, *question_forms(), *words, *(f" {word}" for word in words)]
