"""Codecs of the floor: whatever is valid is read back equal; whatever is not is refused, never crashes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navigation.errors import WarehouseError
from navigation.warehouse import (
    Shelf,
    Station,
    StationKind,
    Warehouse,
    dump_warehouse,
    parse_warehouse,
)

metres = st.floats(4.0, 200.0)
names = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())


@st.composite
def floors(draw):
    """Valid floors: stations in the lower left corner, shelves in a row to the right of them."""
    width, height = draw(st.floats(20.0, 200.0)), draw(st.floats(10.0, 200.0))
    labels = draw(st.lists(names, min_size=2, max_size=6, unique=True))
    kinds = [StationKind.PICK, StationKind.DROP]
    kinds += [draw(st.sampled_from(StationKind)) for _ in labels[2:]]
    stations = tuple(
        Station(label, kind, draw(st.floats(0.5, 5.0)), draw(st.floats(0.5, 9.0)), draw(st.floats(-7.0, 7.0)))
        for label, kind in zip(labels, kinds, strict=True)
    )
    shelves = tuple(
        Shelf(
            7.0 + 3.0 * k, draw(st.floats(2.0, 8.0)), draw(st.floats(0.05, 2.9)), draw(st.floats(0.05, 3.0))
        )
        for k in range(draw(st.integers(0, 4)))
    )
    return Warehouse(draw(names), width, height, shelves, stations, draw(st.integers(0, 100)))


@settings(max_examples=80, deadline=None)
@given(floors())
def test_floor_survives_yaml(floor):
    again = parse_warehouse(dump_warehouse(floor))
    assert again == floor
    assert again.hash() == floor.hash()


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=200), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
).map(str)))  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(WarehouseError) as caught:
        parse_warehouse(text, "floor.yaml")
    assert str(caught.value).startswith("floor.yaml: ")
    assert "\n" not in str(caught.value)
