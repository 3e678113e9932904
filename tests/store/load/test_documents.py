"""Objects are taken apart by the names in them as a JSON parser would do it, whatever stands in names and values."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from ingestd.store.load.documents import taken_apart

WORDS = st.text(st.sampled_from('ab"\\{}[],: é😀\n'), max_size=5) | st.text(max_size=3)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2))
TIGHT, WIDE = (",", ":"), (", ", ": ")


@given(
    objects=st.lists(st.dictionaries(WORDS | st.just("a"), VALUES, max_size=4), min_size=1, max_size=6),
    names=st.lists(WORDS | st.just("a"), max_size=3, unique=True),
    separators=st.sampled_from([TIGHT, WIDE]),
)
@example(objects=[{}, {}], names=["a"], separators=TIGHT)
@example(objects=[{"a": "\\"}, {'\\"': '"'}, {"a": '\\"'}], names=["a"], separators=TIGHT)
def test_values_are_found_under_their_names_and_the_rest_is_kept(objects, names, separators):
    def written(value):
        return json.dumps(value, ensure_ascii=False, separators=separators)

    columns = {f"a:{name}": name for name in names}
    found, others = taken_apart("\n".join(map(written, objects)).encode(), columns)
    assert {column: found[column].to_list() for column in columns} == {
        column: [written(each[name]) if name in each else None for each in objects] for column, name in columns.items()
    }
    rest = [{name: value for name, value in each.items() if name not in names} for each in objects]
    assert [json.loads("{" + (each or "") + "}") for each in others] == rest
