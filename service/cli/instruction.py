"""The option --instruction: a text, or the name of one of the paper's instructions.

Depends on the table of instructions alone. Invariant: a word that is no name is refused, and never
taken as an instruction.
"""

from __future__ import annotations

from model_store.commands.console import misuse, refusing


def named_or_text(text: str | None) -> str | None:
    """The instruction that a text is, or names; a misspelt name ends the command."""
    from service.cli.documents.arguments import is_unicode

    if text is not None and not is_unicode(text):
        misuse("--instruction is not UTF-8 text.")
    if text is None or not text.isascii() or len(text.split()) != 1:
        return text

    from model_store.evaluation.tasks.instructions import NoInstruction, named_instruction

    with refusing(usage=(NoInstruction,)):
        return named_instruction(text).instruction
