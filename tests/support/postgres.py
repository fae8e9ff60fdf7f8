"""A private PostgreSQL of a test: its own folder, a unix socket alone, really stopped and started."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

BINARIES = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"
MISSING = (
    ""
    if (BINARIES / "initdb").exists()
    else f"no {BINARIES}/initdb: apt-get install postgresql-15 (`make setup` does not: Debian starts a server with it)"
)
WAIT_MAX_S = 60.0


class Postgres:
    """One server; PostgreSQL refuses to run as root, so as Debian's user where the tests do."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="outrider-pg-"))
        self._as_user: list[str] = []
        if os.getuid() == 0:
            account = pwd.getpwnam(USER)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        self._data = self.folder / "data"
        self._tool(
            "initdb", "-D", str(self._data), "-U", "outrider", "-A", "trust", "--no-sync", "-E", "UTF8"
        )
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [*self._as_user, str(BINARIES / "postgres"), "-D", str(self._data), "-k", str(self.folder)]
        command += ["-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_connections=20"]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        end = time.monotonic() + WAIT_MAX_S
        while subprocess.run(
            [str(BINARIES / "pg_isready"), "-q", "-h", str(self.folder)], check=False
        ).returncode:
            assert self._server.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once, connections and all, as a machine that goes down does (``immediate``)."""
        if self._server is not None:
            self._tool("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")
            self._server.wait(timeout=WAIT_MAX_S)
            self._server = None

    def make(self, name: str) -> str:
        """A new, empty database; its URL."""
        subprocess.run(
            [str(BINARIES / "createdb"), "-h", str(self.folder), "-U", "outrider", name], check=True
        )
        return f"postgresql+psycopg://outrider@/{name}?host={self.folder}"

    def close(self) -> None:
        """Stop it and remove all it wrote."""
        self.stop()
        shutil.rmtree(self.folder)

    def _tool(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as_user, str(BINARIES / name), *arguments],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
        assert done.returncode == 0, done.stderr
