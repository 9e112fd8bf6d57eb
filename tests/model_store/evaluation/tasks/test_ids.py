"""Ids: found by their numbers and their texts, and refused where one occurs twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.evaluation.tasks.readers.ids import DuplicateId, Ids, IdsBuilder

NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), max_size=20)


def built(names: list[str]) -> Ids:
    builder = IdsBuilder()
    for name in names:
        builder.add(name)
    return builder.build()


@given(names=NAMES, others=NAMES)
def test_ids_are_a_list_with_a_look_up(names: list[str], others: list[str]) -> None:
    distinct = list(dict.fromkeys(names))
    ids = built(distinct)
    assert list(ids) == distinct
    for other in others + names:
        expected = distinct.index(other) if other in distinct else None
        assert ids.find(other) == expected
        assert (other in ids) == (other in distinct)
    assert ids.digest == built(distinct).digest
    assert len({built(distinct[:count]).digest for count in range(len(distinct) + 1)}) == (
        len(distinct) + 1
    )


@given(names=NAMES)
def test_the_first_id_that_occurs_twice_is_refused(names: list[str]) -> None:
    second = next((at for at, name in enumerate(names) if name in names[:at]), None)
    if second is None:
        assert len(built(names)) == len(names)
        return
    with pytest.raises(DuplicateId) as refused:
        built(names)
    found = refused.value
    assert (found.item_id, found.second) == (names[second], second)
    assert found.first == names.index(names[second])
