"""Texts of packages become passages without markup, with the questions that they answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.recipes.mini.sources.dictionaries import sense
from model_store.recipes.mini.sources.html_books import page_passages as html_passages
from model_store.recipes.mini.sources.manual_pages import page_passages
from model_store.recipes.mini.sources.packages import (
    PACKAGES,
    Package,
    SourceUnavailable,
    source_table,
    taken_packages,
    unpacked,
)
from model_store.recipes.mini.sources.passages import LONGEST, is_held_out, joined, shortened
from model_store.recipes.mini.sources.perl_documentation import pod_passages
from model_store.recipes.mini.sources.restructured_text import file_passages

PAGE = r"""
.TH FROB 1 2026
.SH NAME
frob, frobnicate \- turn the \fIknobs\fR of a device
.SH SYNOPSIS
.B frob
[\fIOPTION\fR]
.SH DESCRIPTION
.B frob
turns every knob of a device \(em also those at the back \(em
.\" a comment
until the needle of
.BR meter (1)
stands still.
.nf
frob --example
.fi
.SH OPTIONS
.TP
\fB\-s\fR, \fB\-\-slow\fR
turn the knobs no faster than once a second
.SH AUTHOR
Nobody in particular wrote this page for a test.
"""


def test_a_manual_page() -> None:
    described, option = page_passages("made up", "frob.1", PAGE)
    assert described.text == (
        "frob: frob turns every knob of a device - also those at the back - until the needle of"
        " meter(1) stands still."
    )
    assert described.questions == (
        "turn the knobs of a device",
        "how to turn the knobs of a device",
    )
    assert option.text == "frob -s, --slow: turn the knobs no faster than once a second"
    assert option.questions == ()
    assert list(page_passages("made up", "other.1", ".so man1/frob.1\n")) == []


RST = """\
Knobs of devices
================

A *knob* can be turned by :func:`~frob.turn`, or by ``hand``.

.. note::

   This is no prose of the section.

.. function:: turn(knob, times=1)

   Turn a knob of class :class:`Knob` as often as is asked for here::

      turn(left)

How do I stop a knob?
---------------------

Hold it, and wait until it has come to rest::

   hold(left)
"""


def test_a_file_in_restructured_text() -> None:
    headed = {
        passage.text: passage.questions for passage in file_passages("s", "frob.rst.txt", RST)
    }
    assert headed == {
        "A knob can be turned by frob.turn, or by hand.": ("Knobs of devices",),
        "frob.turn: Turn a knob of class Knob as often as is asked for here": (),
        "Hold it, and wait until it has come to rest": ("How do I stop a knob?",),
    }


def test_a_manual_in_pod() -> None:
    pod = (
        "=head2 How do I turn a knob with L<Knob::Turn|turning>?\n\n"
        "Call C<< $knob->turn >>, and I<wait> for a moment.\n\n    $knob->turn;\n\n=cut\n"
    )
    (passage,) = pod_passages("perl-doc", "perlfaq4.pod", pod)
    assert passage.text == "Call $knob->turn, and wait for a moment."
    assert passage.questions == ("How do I turn a knob with Knob::Turn?",)


def test_a_page_of_a_book() -> None:
    page = (
        "<html><head><title>x</title></head><body><h2>7.1. Turning a knob</h2><p>Take it <em>by"
        "</em> the rim,\n and turn it.</p><pre>turn(knob)</pre><h2>Knobs</h2><p>They are round"
        " and have a rim.</p></body></html>"
    )
    turning, round_ones = html_passages("book", "knobs.html", page)
    assert (turning.text, turning.questions) == (
        "Take it by the rim, and turn it.",
        ("Turning a knob",),
    )
    assert round_ones.questions == ()


def test_a_sense() -> None:
    line = (
        "00021939 03 n 02 door_knob 0 doorhandle 1 001 @ 00022903 n 0000 | a knob to open a door;"
        ' "the doorknob was brass"  '
    )
    passage = sense("wordnet-base", line)
    assert passage.text == (
        'door knob, doorhandle: a knob to open a door; "the doorknob was brass"'
    )
    assert passage.questions == ("door knob", "what is door knob", "a knob to open a door")


def test_long_texts_end_at_a_sentence_and_documents_stay_together() -> None:
    long = " ".join(f"This is sentence {number}." for number in range(100))
    assert len(shortened(long)) <= LONGEST
    assert shortened(long).endswith(".")
    assert all(len(text) <= LONGEST for text in joined([long] * 3))
    held = [is_held_out("manpages", f"page{number}.1") for number in range(4000)]
    assert 400 < sum(held) < 600


def test_every_package_has_a_version_a_digest_and_a_licence() -> None:
    assert len({package.name for package in PACKAGES}) == len(PACKAGES)
    for package in PACKAGES:
        assert len(package.digest) == 64
        assert package.version
        assert package.licence
        assert package.gives


@pytest.mark.slow
def test_a_package_is_fetched_once_and_another_build_is_refused(tmp_path: Path) -> None:
    digest = "9deba5723312380e77435581c6bf4935c94cbfab9b1ed33ef8d238ea168eb760"
    small = Package("PyPI", "iniconfig", "2.1.0", digest, "MIT", "nothing")
    folder = unpacked(small, tmp_path)
    assert (folder / "iniconfig" / "__init__.py").exists()
    assert taken_packages(tmp_path, [small]) == [small]
    (folder / "mark").touch()
    assert (unpacked(small, tmp_path) / "mark").exists()

    other = Package("PyPI", "iniconfig", "2.1.0", "0" * 64, "MIT", "nothing")
    with pytest.raises(SourceUnavailable, match="should have the SHA-256 0000"):
        unpacked(other, tmp_path / "other")
    absent = Package("PyPI", "iniconfig", "0.0.0.999", digest, "MIT", "nothing")
    with pytest.raises(SourceUnavailable, match=r"iniconfig 0\.0\.0\.999 cannot be fetched"):
        unpacked(absent, tmp_path / "absent")


@pytest.mark.slow
def test_a_version_that_left_debian_is_replaced_by_a_later_one_and_the_card_says_so(
    tmp_path: Path,
) -> None:
    small = Package("Debian", "debian-faq", "0.1", "0" * 64, "GPL-2+", "questions")
    folder = unpacked(small, tmp_path)
    assert (folder / "usr/share/doc/debian/FAQ").is_dir()
    (taken,) = taken_packages(tmp_path, [small])
    assert taken.version != "0.1"
    assert taken.digest != small.digest
    assert f"| Debian's debian-faq | {taken.version} (0.1 has left Debian) |" in source_table(
        [taken], [small]
    )

    future = Package("Debian", "debian-faq", "99", "0" * 64, "GPL-2+", "questions")
    with pytest.raises(SourceUnavailable, match="has neither debian-faq 99 nor a later version"):
        unpacked(future, tmp_path / "future")
