"""A campaign's sum over several goes."""

from pathlib import Path

from tests.support.tally import Tally


def test_the_next_go_goes_on_from_the_sum_and_failures_stay_in_it(tmp_path: Path) -> None:
    folder = str(tmp_path / "campaign")
    first = Tally("kills", 10, folder)
    assert (first.left, first.goes_before) == (10, 0)
    first.add(6, cuts=2)
    first.fail(AssertionError("a robot without a policy"))
    second = Tally("kills", 10, folder)
    assert (second.done, second.left, second.goes_before) == (6, 4, 1)
    second.add(4)
    assert second.left == 0
    assert "10 of 10 in 2 go(es)" in second.text()
    assert "1 round(s) failed" in Tally("kills", 10, folder).text()


def test_a_go_ends_when_its_time_is_over_and_keeps_nothing_without_a_folder(tmp_path: Path) -> None:
    tally = Tally("kills", 10, "", time_max_s=-1.0)
    tally.add(3)
    assert (tally.done, tally.left, tally.path) == (3, 0, None)
    assert not list(tmp_path.iterdir())
