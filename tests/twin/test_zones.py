"""Keep-out rectangles and speed zones of the map: routes lead round them, and no robot gets in, whoever drives."""

import msgspec
import numpy as np

from contracts.decision import Reason
from contracts.robot import AMR_SMALL
from edge_agent.guard.zones import zones_of
from navigation.route import Route, cell_costs, check_reachable, entry_cell
from navigation.warehouse import (
    Shelf,
    SpeedZone,
    Station,
    StationKind,
    Warehouse,
    boxes_of,
    dump_warehouse,
    parse_warehouse,
)
from safety.monitor import Inputs, SafetyMonitor
from sim.simulation import Simulation, SimulationConfig

BARE = Warehouse(
    "bare",
    12.0,
    8.0,
    (),
    (Station("pick", StationKind.PICK, 1.5, 4.0), Station("drop", StationKind.DROP, 10.5, 4.0)),
    people=0,
)
AREA = Shelf(6.0, 4.0, 2.0, 3.0)
FLOOR = msgspec.structs.replace(BARE, keep_out=(AREA,), speed_zones=(SpeedZone(6.0, 1.25, 4.0, 2.5, 0.4),))
TICK_NS = 50_000_000


def drive(command, ticks, pose, zones):
    """A robot in the twin that wants ``command``; its places float64[n, 3], speeds and the monitor's reasons."""
    simulation = Simulation(
        [BARE], SimulationConfig(worlds=1, robots=1, people=0, control_hz=20, guarded=False)
    )
    simulation.state.pose[0, 0] = pose
    simulation.state.velocity[:] = 0.0
    monitor = SafetyMonitor(AMR_SMALL, zones=zones)
    monitor.arm()
    # One step at rest, so that scan and odometry are those of the place it was put to.
    simulation.step(np.zeros((1, 1, 2), dtype=np.float32), np.zeros((1, 1, 2)))
    places, speeds, reasons = [], [], set()
    for tick in range(1, ticks):
        state = simulation.state
        where, velocity = tuple(state.pose[0, 0].tolist()), tuple(state.velocity[0, 0].tolist())
        now_ns = tick * TICK_NS
        ruling = monitor.step(
            Inputs(now_ns, simulation.ranges[0, 0], now_ns, velocity, now_ns, command, pose=where)
        )
        reasons.add(ruling.reason)
        simulation.step(np.zeros((1, 1, 2), dtype=np.float32), np.array([[ruling.command]]))
        places.append(state.pose[0, 0].copy())
        speeds.append(abs(float(state.velocity[0, 0, 0])))
    simulation.close()
    return np.array(places), np.array(speeds), reasons


def test_zones_survive_the_file_and_old_floors_keep_their_hash():
    assert parse_warehouse(dump_warehouse(FLOOR)) == FLOOR
    assert "keep_out" not in dump_warehouse(BARE)
    assert BARE.hash() != FLOOR.hash()
    assert BARE.hash() == msgspec.structs.replace(FLOOR, keep_out=(), speed_zones=()).hash()


def test_routes_lead_round_the_area():
    check_reachable(FLOOR)
    route = Route(cell_costs(FLOOR), 10.5, 4.0)
    way = route.polyline(1.5, 4.0, 0.1, 1000)
    x_min, y_min, x_max, y_max = boxes_of([AREA])[0]
    inside = (way[:, 0] > x_min) & (way[:, 0] < x_max) & (way[:, 1] > y_min) & (way[:, 1] < y_max)
    assert not inside.any()
    assert entry_cell(route.field, route.rows, route.columns, 1.5, 4.0)[1] > 9.5


def test_nobody_drives_into_the_area_whatever_is_wanted():
    places, _, reasons = drive((1.2, 0.0), 200, (1.5, 4.0, 0.0), zones_of(FLOOR))
    edge_m = float(boxes_of([AREA])[0][0]) - AMR_SMALL.footprint_radius_m
    assert Reason.KEEP_OUT in reasons
    assert edge_m - 0.5 < places[-1, 0] <= edge_m + 0.01
    free, _, reasons = drive((1.2, 0.0), 200, (1.5, 4.0, 0.0), ())
    assert free[-1, 0] > 10.0
    assert Reason.KEEP_OUT not in reasons


def test_in_a_speed_zone_nobody_is_faster():
    places, speeds, reasons = drive((1.2, 0.0), 260, (1.5, 1.25, 0.0), zones_of(FLOOR))
    within = (places[:, 0] > 4.05) & (places[:, 0] < 7.95)
    assert within.sum() > 20
    assert speeds[within].max() <= 0.4 + 0.05
    assert speeds[~within].max() > 1.0
    assert Reason.SPEED_ZONE in reasons
