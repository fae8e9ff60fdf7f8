"""What the verbs say to input that is none: one line that names it, an exit code, nothing written, no traceback."""

from pathlib import Path

import msgspec
import pytest

from contracts.atomic import write_atomically
from contracts.papers import Act
from outrider.cli import main
from outrider.verbs._operator import refused_option


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    """Exit code and lines of one command."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    output = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, (output.out + output.err).splitlines()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with files that are not what they are taken for."""
    (tmp_path / "file").write_text("some text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("the only copy")
    (tmp_path / "cut.yaml").write_text("name: [unclosed")
    (tmp_path / "unknown.yaml").write_text("colour: red")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CASES = [
    ("sim check none.yaml", 1, "none.yaml: cannot be read: No such file or directory"),
    ("sim check folder", 1, "folder: cannot be read: Is a directory"),
    ("sim check cut.yaml", 1, "cut.yaml: not valid YAML"),
    ("sim check unknown.yaml", 1, "unknown.yaml: Object contains unknown field `colour`"),
    ("sim check bytes.yaml", 1, "bytes.yaml: cannot be read: 'utf-8' codec"),
    ("sim generate --seed 7 --out none/floor.yaml", 1, "outrider: none/floor.yaml: No such file or directory"),
    ("sim generate --seed 7 --out folder", 1, "outrider: folder: Is a directory"),
    ("sim generate --seed 7 --count 2 --out file", 1, "file: File exists"),
    ("sim import-map none.yaml --out f.yaml", 1, "none.yaml: cannot be read: No such file or directory"),
    ("train --out new --config none.yaml", 1, "none.yaml: cannot be read: No such file or directory"),
    ("train --out file --steps 100", 1, "file cannot be written: File exists"),
    ("tune orca --trials 1 --out file", 1, "outrider: file: File exists"),
    ("keys init file --robots robot_1", 1, "file is no folder; keys are never overwritten"),
    ("keys init full --robots robot_1", 1, "full is not empty; keys are never overwritten"),
    ("keys person An/na --roles approver --keys folder", 2, "'An/na' is no name"),
    ("hub mirror north --upstream tcp://127.0.0.1:1 --listen tcp://127.0.0.1:0 --data m --keys folder", 1,
     "no keys of mirror north in folder; make them with `outrider hub mirror-keys north`"),
    ("hub mirror-keys No! --keys folder", 2, "'No!' is no name"),
    ("audit verify --data folder --head 3f9a", 2, "--head: expected the 64 hexadecimal digits of a hash, came '3f9a'"),
    ("agent run --robot robot_1 --layout cut.yaml --state st --keys folder", 2, "cut.yaml: not valid YAML"),
    ("agent filter --robot Bad! --state st", 2, "outrider: 'Bad!' is no name"),
    ("fleet enrol Bad! --as anna --why new --keys folder", 2, "'Bad!' is no name"),
    ("firmware emulate --link none/tty", 2, "none: no such folder; make it first"),
    ("trian", 2, "no verb 'trian'; did you mean 'train'?"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "expected"), CASES, ids=[line for line, _, _ in CASES])
def test_bad_input_is_named_in_one_line(
    line: str, code: int, expected: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.rglob("*"))
    ended, lines = said(capsys, *line.split())
    assert (ended, len(lines)) == (code, 1), lines
    assert lines[0].startswith("outrider: ")
    assert expected in lines[0]
    assert "[Errno" not in lines[0]
    assert sorted(place.rglob("*")) == before


def test_a_robot_that_ros_could_not_name_is_refused_before_ros_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("rclpy", reason="no ROS 2: run 'make setup', or source a distribution")
    assert said(capsys, "agent", "status", "Bad Name") == (
        2, ["outrider: 'Bad Name' is no name: use a-z, 0-9, _ and -"],
    )  # fmt: skip


def test_an_option_is_named_whose_value_a_paper_cannot_hold(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(msgspec.ValidationError) as found:
        msgspec.convert({"action": "start", "person": "anna", "why": "x", "signed_wall_ns": 1}, Act)
    assert refused_option(found.value, person="--as").exit_code == 2
    assert capsys.readouterr().err == "outrider: --why: expected `str` of length >= 3\n"


def test_a_file_that_cannot_be_replaced_is_named_and_left(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(OSError, match="directory") as refused:
        write_atomically(taken, b"new")
    assert refused.value.filename == str(taken)
    assert list(tmp_path.iterdir()) == [taken]
