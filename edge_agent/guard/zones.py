"""What the map says of where robots may go and how fast, as the monitor's zones."""

from navigation.warehouse import Rectangle, Warehouse, boxes_of
from safety.zones import Pair, Zone, rectangle


def zones_of(warehouse: Warehouse) -> tuple[Zone, ...]:
    """Keep-out rectangles and speed zones of a floor; empty where the map has none."""
    return (
        *(Zone("keep_out", _corners(area)) for area in warehouse.keep_out),
        *(Zone("speed_limit", _corners(zone), zone.speed_mps) for zone in warehouse.speed_zones),
    )


def _corners(area: Rectangle) -> tuple[Pair, ...]:
    return rectangle(*boxes_of([area])[0].tolist())
