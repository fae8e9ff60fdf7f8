"""The hub's data folder: one hub at a time, and its sub-folders."""

import fcntl
import os
from pathlib import Path

from fleet_hub.errors import DataFolderBusyError, DataFolderError

DATABASE_FILE = "hub.sqlite"
DATABASE_URL_FILE = "database.url"
"""Which database the hubs of this folder share; not there while it is the SQLite file."""


class DataFolder:
    """DATA/{hub.sqlite, bundles/, staging/, telemetry/ROBOT/LOG/}, locked while this object lives."""

    def __init__(self, path: Path) -> None:
        """Make what is missing and take the lock; raises DataFolderError."""
        try:
            for name in ("bundles", "staging", "telemetry"):
                (path / name).mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / "hub.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataFolderError(
                f"cannot use {path} as data folder: {error.strerror}; give another --data"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise DataFolderBusyError(
                f"another hub uses {path}; stop it, or give another --data folder"
            ) from None
        self.database = path / DATABASE_FILE
        self.bundles = path / "bundles"
        self.staging = path / "staging"
        self.telemetry = path / "telemetry"

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)
