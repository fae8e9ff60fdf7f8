"""The hub's /metrics: what a real hub hands out while a real robot sends; labels stay bounded."""

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleet_hub.errors import AddressBusyError
from fleet_hub.observe.metrics import POLICIES_MAX, HubFigures, MetricsServer, metrics_text
from tests.support.fleet import Fleet, free_port
from tests.support.waiting import wait_for


def scrape(port: int, path: str = "/metrics") -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    as_prometheus_reads = [s.value for f in text_string_to_metric_families(text) for s in f.samples]
    assert as_prometheus_reads == [float(line.rsplit(" ", 1)[1]) for line in lines]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_a_hub_at_work(tmp_path: Path, keys: Path) -> None:
    fleet, port = Fleet(tmp_path, keys), free_port()
    command = [sys.executable, "-m", "outrider.cli", "hub", "run", "--data", str(tmp_path / "data")]
    command += ["--keys", str(keys), "--listen", fleet.address, "--metrics", str(port)]
    fleet.hub_process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert fleet.hub_process.stdout
        assert "hub listens" in fleet.hub_process.stdout.readline()
        fleet.ring()
        fleet.start_comms()
        fleet.push(50)
        found = wait_for(
            lambda: (
                (f := scrape(port)).get("outrider_hub_records_total", 0) >= 50
                and f["outrider_hub_robots_online"] == 1
                and f
            ),
            "50 records of a robot that is heard",
        )
        assert found["outrider_hub_robots"] == 2
        assert found['outrider_hub_robots_policy{policy="none"}'] == 1
        assert found["outrider_hub_turn_worst_seconds"] > 0
        with pytest.raises(urllib.error.HTTPError, match="404"):
            scrape(port, "/other")
        with socket.create_connection(("127.0.0.1", port)):  # says nothing: holds up no robot
            fleet.push(10)
            wait_for(lambda: fleet.ring_waiting() == 0, "the ring drained")
        fleet.hub_process.send_signal(signal.SIGTERM)
        assert fleet.hub_process.wait(60) == 0
    finally:
        fleet.close()


def test_labels_are_bounded_and_escaped() -> None:
    versions = {f"v{n}": 1 for n in range(POLICIES_MAX + 9)} | {'a"b\n': 5}
    figures = HubFigures(
        robots=9, robots_online=1, robots_by_policy=versions, records_stored=1, records_duplicate=0,
        messages_dropped=0, sessions=1, turn_worst_s=0.25,
    )  # fmt: skip
    lines = [
        line for line in metrics_text(figures).splitlines() if line.startswith("outrider_hub_robots_policy{")
    ]
    assert len(lines) == POLICIES_MAX + 1
    assert lines[0] == r'outrider_hub_robots_policy{policy="a\"b\n"} 5'
    assert lines[-1] == 'outrider_hub_robots_policy{policy="other"} 10'


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "127.0.0.1:{busy}"])
def test_no_address(address: str) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        with pytest.raises(AddressBusyError, match="--metrics"):
            MetricsServer(address.format(busy=busy.getsockname()[1]))
