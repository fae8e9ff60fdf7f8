"""The errors of finding one's way."""


class NavigationError(Exception):
    """Root of every error raised by ``navigation``."""


class WarehouseError(NavigationError):
    """A warehouse file does not describe a floor that a robot can work on."""


class RouteError(NavigationError):
    """There is no route from here to there."""


class MapImportError(NavigationError):
    """A ROS map cannot be read, or no floor can be made of it."""
