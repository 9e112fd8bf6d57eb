"""The content of a report: figures, charts as numbers, and the rows that are shown.

Depends on a survey, not on a form of output; sentences have commands between backticks. Invariant:
equal surveys give equal contents, and no more than `MAX_ROWS` rows and the first examples of each
doubt are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from model_store.errors import DataError
from model_store.training.data.doubts.doubt import Doubt, Place, counted
from model_store.training.data.doubts.statistics import Statistics, edge
from model_store.training.data.doubts.survey import Survey, readable_lines
from model_store.training.data.rows import Example, Side, parse_row

MAX_ROWS = 24
EXAMPLES = 3
"""Rows that are shown of each doubt."""
_MOST_BARS = 12

NamedSide = tuple[str, Side]
"""A side by its field, such as `negatives[0]`."""


@dataclass(frozen=True, slots=True)
class Bars:
    """A chart of named amounts; a bar may have parts, which `parts` names."""

    title: str
    note: str
    rows: Sequence[tuple[str, Sequence[int]]]
    parts: Sequence[str] = ("rows",)
    upright: bool = False
    """True: bars stand beside each other, as those of a histogram do."""
    wide: bool = False
    """True: names are sentences."""


@dataclass(frozen=True, slots=True)
class Points:
    """A chart of the sizes of pictures, each with its number."""

    title: str
    note: str
    sizes: Sequence[tuple[int, int, int]]


Chart = Bars | Points


@dataclass(frozen=True, slots=True)
class ShownDoubt:
    """A doubt and the rows of its first places."""

    doubt: Doubt
    examples: Sequence[tuple[Place, Example]]


@dataclass(frozen=True, slots=True)
class Content:
    """All that a report shows."""

    survey: Survey
    verdict: str
    """A sentence on a file without faults."""
    figures: Sequence[tuple[str, int]]
    charts: Sequence[Chart]
    doubts: Sequence[ShownDoubt]
    rows: Sequence[Example]
    notes: Sequence[str]


def content_of(survey: Survey) -> Content:
    """The content of a report; reads the file once more, for the rows that are shown."""
    statistics = survey.statistics
    step = max(1, survey.report.rows // MAX_ROWS)
    wanted: set[int] = set()
    for doubt in survey.doubts:
        wanted |= {place.line for place in doubt.places[:EXAMPLES]}

    shown: dict[int, Example] = {}
    spaced: list[Example] = []
    for number, (line, content) in enumerate(readable_lines(survey.path)):
        is_spaced = number % step == 0 and len(spaced) < MAX_ROWS
        if not is_spaced and line not in wanted:
            continue
        with suppress(DataError):
            example = parse_row(content, survey.path, line)
            shown[line] = example
            if is_spaced:
                spaced.append(example)

    negatives = survey.report.hard + survey.report.random
    return Content(
        survey=survey,
        verdict=_verdict(survey),
        figures=(
            ("rows", survey.report.rows),
            ("positives", statistics.total("positive")),
            ("negatives", negatives),
            ("pictures", survey.report.images),
        ),
        charts=tuple(_charts(survey)),
        doubts=tuple(_shown(doubt, shown) for doubt in survey.doubts),
        rows=tuple(spaced),
        notes=tuple(_notes(survey)),
    )


def first_sides(sides: Sequence[NamedSide], most: int, mark: str) -> list[NamedSide]:
    """The first sides, the one that is marked by its name among them."""
    marked = [named for named in sides[most:] if named[0] == mark]
    return [*sides[: most - len(marked)], *marked]


def _verdict(survey: Survey) -> str:
    lacking = survey.report.without_negatives
    if not lacking:
        return "Nothing is wrong: `gmr train` reads every row."
    return (
        f"Nothing is wrong: {counted(lacking, 'row')} without negatives, which `gmr mine` draws and"
        " `gmr train` needs."
    )


def _shown(doubt: Doubt, shown: dict[int, Example]) -> ShownDoubt:
    examples = [
        (place, shown[place.line]) for place in doubt.places[:EXAMPLES] if place.line in shown
    ]
    return ShownDoubt(doubt, tuple(examples))


def _charts(survey: Survey) -> Iterator[Chart]:
    statistics = survey.statistics
    if not statistics.rows:
        return
    cells = sorted(statistics.cells.items(), key=lambda cell: (-cell[1], cell[0]))
    yield Bars(
        "Tasks",
        "rows by what queries and positives are: T text, I image, IT both",
        [(name, (count,)) for name, count in cells],
    )
    yield Bars(
        "Documents",
        "over all rows",
        [
            ("positives", (statistics.total("positive"),)),
            ("hard negatives", (survey.report.hard,)),
            ("random negatives", (survey.report.random,)),
        ],
        ("documents",),
    )
    yield _negatives(statistics)
    yield from _lengths(statistics)
    if survey.tokens is not None and survey.tokens.prefixes:
        yield _tokens(survey)
    yield _instructions(statistics)
    yield from _scripts(statistics)
    if survey.sizes:
        counts: dict[tuple[int, int], int] = {}
        for size in survey.sizes:
            counts[size] = counts.get(size, 0) + 1
        sizes = [(*size, count) for size, count in sorted(counts.items())]
        yield Points("Pictures", "width and height in pixels", sizes)


def _negatives(statistics: Statistics) -> Bars:
    """Rows by their number of hard and of random negatives."""
    both = list(zip(statistics.hard, statistics.random, strict=True))
    last = max(number for number, pair in enumerate(both) if any(pair))
    labels = [*map(str, range(last)), f"{last}+" if last == len(both) - 1 else str(last)]
    return Bars(
        "Negatives of a row",
        "rows by how many they have",
        list(zip(labels, both, strict=False)),
        ("hard", "random"),
        upright=True,
    )


def _lengths(statistics: Statistics) -> Iterator[Bars]:
    """Texts by their length; bins grow by the square root of two."""
    roles = [role for role in statistics.lengths if statistics.texts(role)]
    if not roles:
        return
    counts = [statistics.lengths[role] for role in roles]
    used = [number for number in range(len(counts[0])) if any(role[number] for role in counts)]
    bins = range(used[0], used[-1] + 1)
    for role, numbers in zip(roles, counts, strict=True):
        plural = "queries" if role == "query" else f"{role}s"
        yield Bars(
            f"Length of {plural}",
            f"texts by characters; half have at most about {statistics.median(role):,}",
            [(f"{edge(number):,}", (numbers[number],)) for number in bins],
            ("texts",),
            upright=True,
        )


def _tokens(survey: Survey) -> Bars:
    """Pairs of the sample by their tokens."""
    tokens = survey.tokens
    assert tokens is not None
    totals = sorted(
        before + after for before, after in zip(tokens.prefixes, tokens.documents, strict=True)
    )
    width = max(16, -(-totals[-1] // 24 // 16) * 16)
    bins = [0] * (totals[-1] // width + 1)
    for total in totals:
        bins[total // width] += 1
    return Bars(
        "Tokens of a pair",
        f"as {tokens.name} reads them; half have at most {totals[len(totals) // 2]:,}",
        [(f"{number * width:,}", (count,)) for number, count in enumerate(bins)],
        ("pairs",),
        upright=True,
    )


def _instructions(statistics: Statistics) -> Bars:
    most = statistics.instructions.most_common(_MOST_BARS)
    others = statistics.rows - sum(count for _, count in most)
    rows = [(name or "none: the model's own", (count,)) for name, count in most]
    if others:
        rows.append((f"{others:,} rows with others", (others,)))
    return Bars("Instructions", "rows by instruction", rows, wide=True)


def _scripts(statistics: Statistics) -> Iterator[Bars]:
    """Scripts of texts, where there are several."""
    names: set[str] = set()
    for counts in statistics.scripts.values():
        names |= set(counts)
    if len(names) < 2:
        return
    roles = tuple(statistics.scripts)
    rows = [(name, [statistics.scripts[role][name] for role in roles]) for name in names]
    rows.sort(key=lambda row: (-sum(row[1]), row[0]))
    parts = ("queries", "positives", "negatives")
    yield Bars("Scripts", "texts by the script of most of their letters", rows, parts)


def _notes(survey: Survey) -> Iterator[str]:
    """The survey's notes, and the command that plans the run's cost."""
    yield from survey.notes
    if survey.size_command is not None:
        yield f"To plan the run: `{survey.size_command}`"
