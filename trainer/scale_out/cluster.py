"""The only place that imports Ray and begins or ends a connection to a cluster."""

import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from trainer.errors import ScaleOutError
from trainer.scale_out.config import LOCAL, ScaleOutConfig

CONNECT_MAX_S = 5.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Ray tells nobody that it is used, and does not warn of what it will do about GPUs one day."""


def import_ray() -> Any:
    """Ray, which only this feature needs.

    Raises:
        ScaleOutError: it is not installed.
    """
    os.environ.update(QUIET)
    try:
        import ray
    except ImportError as error:
        raise ScaleOutError(
            f"--ray needs Ray, which is not installed ({error}); pip install 'outrider[scale]'"
        ) from None
    return ray


def require(settings: ScaleOutConfig) -> None:
    """See that there is a Ray, and something at the address; Ray itself would try for half a minute.

    Raises:
        ScaleOutError: Ray is missing, the address is none, or nothing listens there.
    """
    import_ray()
    if settings.address in (LOCAL, "auto"):
        return
    host, _, port = settings.address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ScaleOutError(
            f"--ray is {settings.address!r}; expected host:port of a cluster's head (on one of its nodes; Ray's"
            " client, ray://, is not supported), auto, or local"
        )
    try:
        socket.create_connection((host, int(port)), CONNECT_MAX_S).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(settings, error) from None


def connect(settings: ScaleOutConfig) -> tuple[Any, Callable[[], None]]:
    """Ray, connected as ``settings`` ask, and what ends that again: with all processes, if it was started here.

    Raises:
        ScaleOutError: Ray is missing, or no cluster answers.
    """
    require(settings)
    ray = import_ray()
    if ray.is_initialized():
        return ray, lambda: None
    options: dict[str, Any] = {"address": settings.address, "log_to_driver": False}
    if settings.address == LOCAL:
        options |= {
            "num_cpus": settings.actors,
            "num_gpus": 0,
            "include_dashboard": False,
            "object_store_memory": settings.object_store_bytes,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        ray.init(logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        ray.shutdown()
        raise _no_cluster(settings, error) from None
    return ray, ray.shutdown


def _no_cluster(settings: ScaleOutConfig, error: Exception) -> ScaleOutError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return ScaleOutError(
        f"no Ray cluster at {settings.address!r}: {reason}; start one (ray start --head), or give --ray local"
    )
