"""Generated floors are valid, reproducible and different; broken layouts are refused with one clear line."""

import hashlib
import itertools
import math
import re
from pathlib import Path

import pytest
import yaml

from navigation.errors import WarehouseError
from navigation.route import check_reachable
from navigation.warehouse import (
    StationKind,
    box_clearance,
    dump_warehouse,
    load_warehouse,
    parse_warehouse,
    validate_warehouse,
)
from sim.errors import GenerateError, SimConfigError
from sim.world.generate import PICK_CLEARANCE_M, GenerateConfig, generate_warehouse
from sim.world.library import find_layout, library_names
from sim.world.orders import OrderStream

SEEDS = range(50)


@pytest.mark.parametrize("seed", SEEDS)
def test_floor_is_valid(seed):
    floor = generate_warehouse(seed)
    validate_warehouse(floor, floor.name)
    check_reachable(floor)
    assert parse_warehouse(dump_warehouse(floor)) == floor
    assert len(floor.stations_of(StationKind.PICK)) >= 6
    assert len(floor.stations_of(StationKind.DROP)) >= 3
    assert len(floor.stations_of(StationKind.CHARGE)) >= 4
    assert 3 <= floor.people <= 6
    boxes = floor.boxes()
    for pick in floor.stations_of(StationKind.PICK):
        assert box_clearance(boxes, pick.x_m, pick.y_m) >= PICK_CLEARANCE_M - 0.01
    for a in floor.stations:
        assert all(a is b or math.hypot(a.x_m - b.x_m, a.y_m - b.y_m) > 1.0 for b in floor.stations)


def test_same_seed_same_floor():
    assert [generate_warehouse(seed).hash() for seed in range(5)] == [
        generate_warehouse(seed).hash() for seed in range(5)
    ]


def test_default_floors_are_those_of_the_first_releases():
    hashes = "".join(generate_warehouse(seed).hash() for seed in SEEDS)
    assert (
        hashlib.sha256(hashes.encode()).hexdigest()
        == "f5b4197a523d4583c4dfe9b4aafa0c428e25f4c030257301ca34ece05697b4a8"
    )


def test_floors_differ():
    assert len({generate_warehouse(seed).hash() for seed in SEEDS}) == len(SEEDS)


def test_floor_without_room_is_refused():
    config = GenerateConfig(width_m=(6.0, 6.5), height_m=(5.0, 5.5))
    with pytest.raises(GenerateError, match="give the config more room"):
        generate_warehouse(0, config)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range_is_refused(seed):
    with pytest.raises(GenerateError, match="seed"):
        generate_warehouse(seed)


@pytest.mark.parametrize(
    "settings",
    [
        {"aisle_m": (1.0, 2.0)},
        {"people": (4, 3)},
        {"width_m": (0.0, 20.0)},
        {"missing_share": 0.95},
        {"pallets": -1},
    ],
)
def test_bad_config_is_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        GenerateConfig(**settings)


@pytest.mark.parametrize("name", library_names())
def test_library_layout_is_valid(name):
    floor = load_warehouse(find_layout(Path(name)))
    check_reachable(floor)
    assert floor.name == name


def _broken(change):
    floor = yaml.safe_load(dump_warehouse(load_warehouse(find_layout(Path("small")))))
    change(floor)
    return yaml.safe_dump(floor)


def _wall_across(floor):
    floor["shelves"].append({"x_m": 2.4, "y_m": 4.0, "length_m": 0.4, "depth_m": 8.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["shelves"].append(dict(f["shelves"][0])), r"shelves\[0\] and shelves\[4\] overlap"),
        (lambda f: f["shelves"][0].update(x_m=0.5), r"shelves\[0\] reaches outside"),
        (lambda f: f["stations"][0].update(x_m=4.4, y_m=2.5), r"stations\[0\] \(pick_1\): 0.00 m from"),
        (lambda f: f["stations"][0].update(x_m=-3.0), r"stations\[0\]"),
        (lambda f: f["stations"][1].update(name="pick_1"), "names must be unique"),
        (lambda f: f["stations"][0].update(kind="pikc"), "pikc"),
        (lambda f: f.update(colour="red"), "colour"),
        (lambda f: f["shelves"][0].update(heigth_m=1.0), "heigth_m"),
        (lambda f: f.pop("width_m"), "width_m"),
        (lambda f: f.update(width_m="wide"), "width_m"),
        (lambda f: f.update(width_m=float("nan")), "width_m"),
        (lambda f: f["stations"][0].update(y_m=float("inf")), "not finite"),
        (lambda f: f.update(people=-1), "people"),
        (_wall_across, "cannot be reached"),
        (
            lambda f: f.update(stations=[s for s in f["stations"] if s["kind"] != "drop"]),
            "no station of kind 'drop'",
        ),
    ],
)
def test_broken_layout_is_refused_in_one_clear_line(change, message):
    with pytest.raises(WarehouseError) as caught:
        check_reachable(parse_warehouse(_broken(change), "floor.yaml"), "floor.yaml")
    text = str(caught.value)
    assert text.startswith("floor.yaml: ")
    assert re.search(message, text)
    assert "\n" not in text


@pytest.mark.parametrize("text", ["", "[1, 2", "just words", "a: &a [*a]", "- 1"])
def test_text_that_is_no_layout_is_refused(text):
    with pytest.raises(WarehouseError, match=r"floor\.yaml"):
        parse_warehouse(text, "floor.yaml")


def test_orders_are_seeded_and_go_from_pick_to_drop():
    floor = generate_warehouse(3)
    first, again = OrderStream(floor, 5, 0), OrderStream(floor, 5, 0)
    orders = [first.next_order() for _ in range(50)]
    assert orders == [again.next_order() for _ in range(50)]
    other = OrderStream(floor, 5, 1)
    assert orders != [other.next_order() for _ in range(50)]
    assert all(a.kind is StationKind.PICK and b.kind is StationKind.DROP for a, b in orders)
    assert all(before[0] != after[0] for before, after in itertools.pairwise(orders))
    with pytest.raises(SimConfigError):
        OrderStream(floor, -1, 0)
