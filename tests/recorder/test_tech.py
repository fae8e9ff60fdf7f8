"""What a field tech's computer has and a robot's has not: MCAP in public readers, Parquet, the screen, replay."""

import asyncio
import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from textual.widgets import Static

from contracts.canonical import digest_hex
from contracts.observation import OBSERVATION_SIZE
from edge_agent.infer.policy import Policy
from edge_agent.recorder.drawing import BARS, Canvas, bars, draw_beams
from edge_agent.recorder.reading import load_log, open_log
from edge_agent.recorder.recorder import Recorder
from edge_agent.recorder.ros_messages import DEFINITIONS, definition, schema_name
from edge_agent.recorder.screen import LogScreen
from tests.recorder.support import drive, run_logs, stop_at, write_log
from tests.support.fleet import make_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 decisions, sealed in part; stops at ticks 101 and 251; no goal and no command in the first ten."""
    folder = tmp_path_factory.mktemp("robot")
    rows = drive(300)
    stop_at(rows, 100)
    stop_at(rows, 250)
    rows["goal"], rows["trip"] = (4.0, 5.0), 3
    rows["goal"][:10], rows["raw_command"][:10] = np.nan, np.nan
    rows["observation"][:10] = 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("contracts.framelog_writer.SEGMENT_MAX_BYTES", 60_000)
        patched.setattr("edge_agent.recorder.sealing.BLOCK_RECORDS", 32)
        write_log(folder, rows)
    return folder


@pytest.fixture(scope="module")
def mcap_file(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("mcap") / "run.mcap"
    done = run_logs("export", str(state), "--mcap", str(output))
    assert done.returncode == 0, done.stderr
    return output


def test_mcap_opens_in_the_public_reader(mcap_file: Path) -> None:
    with mcap_file.open("rb") as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        counts: dict[str, int] = {}
        for _, channel, _ in reader.iter_messages():
            counts[channel.topic] = counts.get(channel.topic, 0) + 1
    assert summary
    assert {c.message_encoding for c in summary.channels.values()} == {"cdr"}
    assert {s.encoding for s in summary.schemas.values()} == {"ros2msg"}
    decisions = ("cmd_vel", "odom", "outrider/safety", "outrider/decision")
    assert {topic: counts[f"/robot_1/{topic}"] for topic in decisions} == dict.fromkeys(decisions, 300)
    assert counts["/robot_1/goal"] == counts["/robot_1/cmd_vel_raw"] == counts["/robot_1/scan_sectors"] == 290
    layout = json.loads(mcap_file.with_name("run.foxglove.json").read_text())
    shown = json.dumps(layout)
    assert all(topic in counts for topic in layout["configById"]["3D!floor"]["topics"])
    assert "/robot_1/cmd_vel.twist.linear.x" in shown


def test_rosbags_decodes_every_message_to_what_was_recorded(mcap_file: Path, state: Path) -> None:
    types = get_typestore(Stores.EMPTY)
    for kind in DEFINITIONS:
        types.register(get_types_from_msg(definition(kind), schema_name(kind)))
    rows = load_log(state / "log").decisions
    seen: dict[str, list[tuple[int, object]]] = {}
    with Reader(mcap_file) as reader:
        for connection, time_ns, data in reader.messages():
            message = types.deserialize_cdr(data, connection.msgtype)
            seen.setdefault(connection.topic.removeprefix("/robot_1/"), []).append((time_ns, message))
    assert [time_ns for time_ns, _ in seen["cmd_vel"]] == rows["wall_ns"].tolist()
    finals = np.array([(m.twist.linear.x, m.twist.angular.z) for _, m in seen["cmd_vel"]])  # type: ignore[attr-defined]
    assert np.array_equal(finals.astype(np.float32), rows["final_command"])
    scan = seen["scan_sectors"][0][1]
    assert np.array_equal(scan.ranges, rows["observation"][10, :36])  # type: ignore[attr-defined]
    assert scan.header.frame_id == "base_link"  # type: ignore[attr-defined]
    safety = [m for _, m in seen["outrider/safety"]]
    assert [m.verdict for m in safety] == rows["verdict"].tolist()  # type: ignore[attr-defined]
    assert safety[105].reason_text == "scan stale"  # type: ignore[attr-defined]
    assert all(m.armed for m in safety)  # type: ignore[attr-defined]
    decision = seen["outrider/decision"][20][1]
    assert (decision.tick, decision.robot_id, decision.policy_digest) == (21, "robot_1", "aa" * 32)  # type: ignore[attr-defined]
    assert decision.source == 2  # type: ignore[attr-defined]
    names = [status.message for _, m in seen["diagnostics"] for status in m.status]  # type: ignore[attr-defined]
    assert {"recorder_opened", "segment_sealed"} <= set(names)


def test_our_definitions_are_the_public_ones_and_those_of_ros_ws() -> None:
    public = get_typestore(Stores.ROS2_JAZZY)
    own = get_typestore(Stores.EMPTY)
    for kind in DEFINITIONS:
        own.register(get_types_from_msg(definition(kind), schema_name(kind)))
    for kind in DEFINITIONS:
        name = schema_name(kind)
        if not kind.startswith("outrider_msgs/"):
            assert own.hash_rihs01(name) == public.hash_rihs01(name), name
            continue
        path = ROOT / "ros_ws" / "src" / "outrider_msgs" / "msg" / f"{kind.split('/')[1]}.msg"
        lines = [line.split("#")[0].split() for line in path.read_text().splitlines()]
        fields = [tuple(words[:2]) for words in lines if words and "=" not in words[1]]
        assert fields == list(DEFINITIONS[kind]), kind


def test_tables(state: Path, tmp_path: Path) -> None:
    rows = load_log(state / "log").decisions
    for kind in ("csv", "parquet"):
        assert run_logs("export", str(state), f"--{kind}", str(tmp_path / f"run.{kind}")).returncode == 0
    table = pyarrow.parquet.read_table(tmp_path / "run.parquet")
    assert table.num_rows == 300
    assert np.array_equal(table["obs_beams_7"].to_numpy(), rows["observation"][:, 7])
    assert table["verdict"].to_pylist()[98:102] == ["pass", "pass", "stop", "stop"]
    assert table["policy_digest"].to_pylist()[0] == "aa" * 32
    assert pyarrow.parquet.read_table(tmp_path / "run.events.parquet").num_rows == 1 + 2
    with (tmp_path / "run.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["tick"]) for line in lines] == rows["tick"].tolist()
    assert lines[100]["reason"] == "scan_stale"
    assert np.float32(lines[50]["final_speed_mps"]) == rows["final_command"][50, 0]
    assert run_logs("export", str(state)).returncode == 2


def texts(screen: LogScreen, name: str) -> str:
    return str(screen.query_one(f"#{name}", Static).render())


def test_the_screen(state: Path) -> None:
    async def look() -> None:
        screen = LogScreen(open_log(state / "log"))
        async with screen.run_test(size=(140, 44)) as pilot:
            assert "tick 1 " in texts(screen, "head")
            assert texts(screen, "timeline").count("!") == 2
            await pilot.press("n")
            assert screen.cursor == 100
            assert "INCIDENT    stop: scan stale" in texts(screen, "detail")
            assert "allowed     +0.000 m/s" in texts(screen, "detail")
            assert "config      c0c0c0c0c0c0c0c0; entropy +1." in texts(screen, "detail")
            await pilot.press("n")
            assert screen.cursor == 250
            await pilot.press("n")
            assert screen.cursor == 250
            await pilot.press("p", "left", "left")
            assert screen.cursor == 98
            assert "pass: clear" in texts(screen, "detail")
            before = texts(screen, "lidar")
            assert sum(ord(dot) > 0x2800 for dot in before if dot != "\n") > 30
            await pilot.press("down")
            assert screen.cursor == pytest.approx(118, abs=1)
            assert texts(screen, "lidar") != before
            await pilot.press("end")
            assert screen.cursor == 299
            await pilot.press("home", "plus", "plus", "space")
            await pilot.pause(0.6)
            assert screen.cursor > 20
            assert "replay x5" in texts(screen, "head")
            await pilot.press("space")
            assert not screen.playing
            assert any(bar in texts(screen, "bars") for bar in BARS)
            await pilot.press("q")

    asyncio.run(look())


def test_an_empty_log_on_the_screen(tmp_path: Path) -> None:
    write_log(tmp_path, drive(0))

    async def look() -> None:
        screen = LogScreen(open_log(tmp_path / "log"))
        async with screen.run_test(size=(100, 30)) as pilot:
            await pilot.press("n", "p", "right", "down", "end", "space")
            assert "no decision" in texts(screen, "head")

    asyncio.run(look())


def test_pictures() -> None:
    canvas = Canvas(2, 1)
    for x, y in ((0, 0), (3, 3), (9, 9), (-1, 0)):
        canvas.dot(x, y)
    assert canvas.text() == "⠁⢀"
    ahead = draw_beams([8.0] * 17 + [1.0, 1.0] + [8.0] * 17, 20, 10, 8.0, 0.1, (0.0, 0.0)).splitlines()
    assert any(ord(dot) > 0x2800 for dot in ahead[0][8:12])
    assert not any(ord(dot) > 0x2800 for line in ahead[6:] for dot in line)
    assert bars([0.0, 1.0, float("nan"), 2.0], 4, 2.0) == "▁▅ █"
    assert bars([], 4, 1.0) == ""


def test_replay_gives_the_same_bits_and_shows_what_differs(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "policy.outrider"
    path.write_bytes(make_bundle(keys / "release" / "release.pem"))
    digest = digest_hex(path.read_bytes())
    import zipfile

    with zipfile.ZipFile(path) as members:
        policy = Policy(members.read("policy.onnx"), digest, "v1", 1)
    rows = drive(60)
    rows["policy_digest"] = np.frombuffer(bytes.fromhex(digest), np.uint8)
    for row in rows:
        row["raw_command"] = row["final_command"] = policy.run(row["observation"])
    rows["policy_digest"][50:] = 7
    write_log(tmp_path / "good", rows)
    done = run_logs("replay", str(tmp_path / "good"), "--bundle", str(path), "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["asked"], value["equal"], value["skipped"]) == (0, 50, 50, 10)
    assert value["drove"]
    assert rows["observation"].shape[1] == OBSERVATION_SIZE

    rows["raw_command"][20, 0] = np.nextafter(rows["raw_command"][20, 0], np.float32(9.0))
    rows["final_command"][30] = 0.5
    write_log(tmp_path / "bad", rows)
    done = run_logs("replay", str(tmp_path / "bad"), "--bundle", str(path))
    assert done.returncode == 1
    assert "tick 21: was" in done.stdout
    assert "1 decisions passed, but the command was touched; the first is tick 31" in done.stdout

    other = tmp_path / "other.outrider"
    other.write_bytes(make_bundle(keys / "release" / "release.pem", version="v2"))
    assert "never drove" in run_logs("replay", str(tmp_path / "good"), "--bundle", str(other)).stdout
    path.write_bytes(b"no bundle")
    done = run_logs("replay", str(tmp_path / "good"), "--bundle", str(path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_clock_that_says_anything_keeps_no_tool_from_working(tmp_path: Path) -> None:
    """Times before 1970, and beyond what ROS 2's int32 seconds can say."""
    rows = drive(200)
    rows["wall_ns"][50:100], rows["wall_ns"][100:150], rows["wall_ns"][150:] = 2**63 - 1, -5, -(2**63)
    recorder = Recorder(tmp_path / "state", "robot_1")
    recorder.decisions([row.tobytes() for row in rows])
    recorder.close()
    exports = [["export", f"--{kind}", str(tmp_path / f"out.{kind}")] for kind in ("mcap", "csv", "parquet")]
    for command in (["summary"], ["incidents"], ["verify"], ["show", "--tick", "60"], *exports):
        done = run_logs(*command, str(tmp_path / "state"))
        assert (done.returncode, done.stderr) == (0, ""), command
    with (tmp_path / "out.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_end_time == (2**31 - 1) * 10**9
