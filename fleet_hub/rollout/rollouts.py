"""Rollouts: which robot should run which release. The newest rollout that names a robot wins."""

from collections.abc import Callable, Sequence

from contracts.messages import Offer, ReleaseInfo, RobotProgress, RolloutView
from fleet_hub.errors import UnknownRobotError, UnknownRolloutError
from fleet_hub.store.database import Database

FINAL_STATES = ("active", "refused", "superseded")


class Rollouts:
    """Rollouts of one hub, in its database."""

    def __init__(self, database: Database, robots: frozenset[str], wall_ns: Callable[[], int]) -> None:
        """``robots`` are the names in the allow-list."""
        self._database = database
        self._robots = robots
        self._wall_ns = wall_ns

    def start(self, release: ReleaseInfo, targets: Sequence[str]) -> int:
        """Begin a rollout to ``targets`` (none: every robot); older unfinished ones of these robots end.

        Raises:
            UnknownRobotError: A target is not in the allow-list; nothing has been started.
        """
        unknown = sorted(set(targets) - self._robots)
        if unknown:
            raise UnknownRobotError(
                f"no robot {', '.join(unknown)} in this fleet; there are: {', '.join(sorted(self._robots))}"
            )
        now = self._wall_ns()
        with self._database.transaction():
            rollout = self._database.run(
                "INSERT INTO rollout (release, started_wall_ns) SELECT id, ? FROM release WHERE digest = ?",
                now,
                release.digest,
            )
            for robot in sorted(set(targets) or self._robots):
                self._database.run(
                    "UPDATE rollout_robot SET state = 'superseded', updated_wall_ns = ? "
                    "WHERE robot = ? AND state NOT IN ('active', 'refused', 'superseded')",
                    now,
                    robot,
                )
                self._database.run(
                    "INSERT INTO rollout_robot VALUES (?, ?, 'offered', '', ?)", rollout, robot, now
                )
        return rollout

    def offer_for(self, robot: str) -> Offer | None:
        """What the robot should still be told: the newest rollout for it, unless it has ended there."""
        rows = self._database.rows(
            "SELECT p.rollout, p.state, r.digest, r.size_bytes, r.policy_name, r.version, r.release_counter "
            "FROM rollout_robot p JOIN rollout o ON o.id = p.rollout JOIN release r ON r.id = o.release "
            "WHERE p.robot = ? ORDER BY p.rollout DESC LIMIT 1",
            robot,
        )
        if not rows or rows[0][1] in FINAL_STATES:
            return None
        rollout, _, digest, size, name, version, counter = rows[0]
        return Offer(int(rollout), str(digest), int(size), str(name), str(version), int(counter))

    def report(self, robot: str, rollout: int, digest: str, state: str, reason: str) -> None:
        """Note how far a robot has come; reports about others' or ended rollouts change nothing."""
        self._database.run(
            "UPDATE rollout_robot SET state = ?, reason = ?, updated_wall_ns = ? WHERE rollout = ? AND "
            "robot = ? "
            "AND state NOT IN ('active', 'refused', 'superseded') AND rollout IN "
            "(SELECT o.id FROM rollout o JOIN release r ON r.id = o.release WHERE r.digest = ?)",
            state,
            reason,
            self._wall_ns(),
            rollout,
            robot,
            digest,
        )

    def view(self, rollout: int) -> RolloutView:
        """One rollout, the newest for 0; raises UnknownRolloutError."""
        rows = self._database.rows(
            "SELECT o.id, o.started_wall_ns, r.digest, r.policy_name, r.version, r.release_counter, "
            "r.size_bytes, "
            "r.released_wall_ns FROM rollout o JOIN release r ON r.id = o.release "
            "WHERE o.id = ? OR ? = 0 ORDER BY o.id DESC LIMIT 1",
            rollout,
            rollout,
        )
        if not rows:
            what = f"no rollout {rollout}" if rollout else "no rollout has been started"
            raise UnknownRolloutError(f"{what}; begin one with `outrider rollout start`")
        found, started, digest, name, version, counter, size, released = rows[0]
        info = ReleaseInfo(str(digest), str(name), str(version), int(counter), int(size), int(released))
        robots = self._database.rows(
            "SELECT robot, state, reason, updated_wall_ns FROM rollout_robot WHERE rollout = ? ORDER BY "
            "robot",
            int(found),
        )
        progress = tuple(RobotProgress(str(r), str(s), str(w), int(t)) for r, s, w, t in robots)
        return RolloutView(int(found), info, int(started), progress)
