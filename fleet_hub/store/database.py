"""The hub's database, through SQLAlchemy Core: SQLite by default (WAL, synchronous FULL), or PostgreSQL for many hubs.

What was answered survives ``kill -9`` and power cuts in both. SQL is written once, with ``?`` for values; the database
says what it calls types (``schema``). In PostgreSQL every transaction that writes is fenced by the hub's ``lease``.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from fleet_hub.errors import DatabaseLostError, DataFolderError
from fleet_hub.limits import DATABASE_BUSY_MS
from fleet_hub.store.folder import DATABASE_FILE, DATABASE_URL_FILE
from fleet_hub.store.lease import RENEW_S, Lease
from fleet_hub.store.pipeline import Pipeline
from fleet_hub.store.schema import COLUMNS, HUBS, MIGRATIONS, POSTGRESQL, SCHEMA_VERSION, SQLITE

DRIVER = "postgresql+psycopg"
ANSWER_MAX_S = 8.0
"""A database that does not answer for so long is lost; less than the lease."""
_SETTINGS = (
    f"-c statement_timeout={int(ANSWER_MAX_S * 1000)} -c lock_timeout={DATABASE_BUSY_MS} "
    f"-c idle_in_transaction_session_timeout={int(ANSWER_MAX_S * 1000)} -c synchronous_commit=on"
)
_SCHEMA_LOCK = 0x6F757472
Value = str | int | bytes


def checked_url(text: str) -> str:
    """A PostgreSQL URL without a password, as it may be kept and shown; raises DataFolderError."""
    try:
        url = make_url(text)
    except ArgumentError:
        url = URL.create("none")
    if url.drivername != DRIVER:
        raise DataFolderError(
            f"--database: expected {DRIVER}://USER@HOST/NAME, came {url.drivername}://...; "
            "without --database the hub keeps its own SQLite file"
        )
    if url.password or "password" in url.query:
        raise DataFolderError(
            "--database: the URL is written down and shown, so it may hold no password; "
            "put it into ~/.pgpass (PGPASSFILE)"
        )
    return text


def known_url(data: Path) -> str:
    """The database that the hubs of a data folder share; "" where it is the folder's own SQLite file."""
    path = data / DATABASE_URL_FILE
    return checked_url(path.read_text().strip()) if path.is_file() else ""


def read_rows(data: Path, query: str, *values: Value) -> list[tuple[Any, ...]]:
    """Rows out of a data folder's database, whether a hub runs or not; raises DataFolderError."""
    url = known_url(data)
    path = data / DATABASE_FILE
    if not url and not path.is_file():
        raise DataFolderError(f"{path} is not there; give the hub's --data folder")
    engine = _engine(url) if url else _engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    try:
        with engine.connect() as connection:
            return _rows(connection, query, values)
    except SQLAlchemyError as error:
        raise DataFolderError(
            f"{url or path} cannot be read ({brief(error)}); give the hub's --data folder"
        ) from None
    finally:
        engine.dispose()


def brief(error: SQLAlchemyError) -> str:
    """What the database itself said, in a line."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


class Database:
    """One connection, used by one thread."""

    def __init__(self, path: Path, url: str = "", holder: str = "hub") -> None:
        """Open or make the database: the SQLite file, or with ``url`` one that hubs share, as the hub that serves.

        Raises:
            DataFolderError: It is of another version, or none.
            LeaseHeldError: Another hub serves.
            DatabaseLostError: PostgreSQL cannot be reached.
        """
        self._shared, self._path = bool(url), url or str(path)
        self._lease: Lease | None = None
        self._pipeline: Pipeline | None = None
        self._opened: Connection | None = None
        self._engine = _engine(url or URL.create("sqlite", database=str(path)))
        self._inside = False
        self._renewed_s = time.monotonic()
        try:
            self._connection = self._opened = self._engine.connect()
            if self._shared:
                self._make_shared()
                self._lease, self._pipeline = Lease(self._connection, holder), Pipeline(self._connection)
            else:
                self._make_own()
        except SQLAlchemyError as error:
            self.close()
            if self._shared:
                raise self.lost(error) from None
            raise DataFolderError(
                f"{path} is no hub database ({brief(error)}); give another --data folder"
            ) from None
        except BaseException:
            self.close()
            raise

    @property
    def shared(self) -> bool:
        """Whether other hubs may take over."""
        return self._shared

    def lost(self, error: SQLAlchemyError) -> DataFolderError | DatabaseLostError:
        """What a hub says that can write no more."""
        if self._shared:
            return DatabaseLostError(f"{self._path}: {brief(error)}; nothing is answered until it is back")
        return DataFolderError(
            f"{self._path}: {brief(error)}; this hub ends, free some space and start it again"
        )

    def rows(self, query: str, *values: Value) -> list[tuple[Any, ...]]:
        """All rows of a query, which sees every write before it."""
        self._flush()
        return _rows(self._connection, query, values)

    def run(self, statement: str, *values: Value) -> None:
        """Execute one statement; in PostgreSQL with all others of its transaction, at the latest when that ends."""
        if self._pipeline is None:
            _execute(self._connection, statement, values)
            return
        with self.transaction():
            self._pipeline.add(*_in_words_of_postgresql(statement, values))

    def pragma(self, text: str) -> None:
        """A setting of SQLite; nothing elsewhere."""
        if not self._shared:
            _execute(self._connection, f"PRAGMA {text}", ())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside, or none; inside another transaction, all of that one."""
        if self._inside:
            yield
            return
        self._begin()
        try:
            yield
            self._flush()
        except BaseException:
            self._inside = False
            if self._pipeline is not None:
                self._pipeline.forget()
            with suppress(SQLAlchemyError):  # a lost database has rolled back by itself
                _execute(self._connection, "ROLLBACK", ())
            raise
        self.commit()

    def hold(self) -> None:
        """Let what follows be one transaction, until ``commit``: a thousand reports cost one sync, not a thousand."""
        if not self._inside:
            self._begin()

    def commit(self) -> None:
        """Make durable what was held; nothing of it may have been told to anybody before."""
        if self._inside:
            self._inside = False
            self._flush()
            _execute(self._connection, "COMMIT", ())

    def keep_lease(self) -> None:
        """Say now and then that this hub goes on, outside a transaction; raises FencedError."""
        if self._lease is not None and time.monotonic() - self._renewed_s >= RENEW_S:
            self._lease.renew()
            self._renewed_s = time.monotonic()

    def close(self) -> None:
        """Close the connection; what was not committed is gone. Lets the next hub serve."""
        with suppress(SQLAlchemyError):
            if self._inside:
                _execute(self._connection, "ROLLBACK", ())
            if self._lease is not None:
                self._lease.give_up()
        with suppress(SQLAlchemyError):
            if self._opened is not None:
                self._opened.close()
        self._engine.dispose()

    def _flush(self) -> None:
        if self._pipeline is not None:
            self._pipeline.flush()

    def _begin(self) -> None:
        _execute(self._connection, "BEGIN" if self._shared else "BEGIN IMMEDIATE", ())
        self._inside = True
        if self._lease is not None:
            self._lease.fence()

    def _make_own(self) -> None:
        for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self.pragma(setting)
        version = int(self.rows("PRAGMA user_version")[0][0])
        self._check_version(version)
        if version < SCHEMA_VERSION:
            with self.transaction():
                for statement in SQLITE.write(MIGRATIONS[version]):
                    self.run(statement)
                self.pragma(f"user_version = {SCHEMA_VERSION}")

    def _make_shared(self) -> None:
        with self.transaction():
            self.rows("SELECT pg_advisory_xact_lock(?)", _SCHEMA_LOCK)
            if not self.rows("SELECT to_regclass('hub_schema')")[0][0]:
                for statement in POSTGRESQL.write(HUBS + MIGRATIONS[0]):
                    self.run(statement)
                self.run("INSERT INTO hub_schema VALUES (?)", SCHEMA_VERSION)
            self._check_version(int(self.rows("SELECT version FROM hub_schema")[0][0]))

    def _check_version(self, version: int) -> None:
        if version != SCHEMA_VERSION and (self._shared or version not in MIGRATIONS):
            raise DataFolderError(
                f"{self._path}: expected schema {SCHEMA_VERSION}, came {version}; update outrider"
            )

    def take_in(self, path: Path) -> int:
        """Copy an SQLite hub's rows into this empty shared database, all or none; how many came."""
        own = Database(path)
        count = 0
        try:
            with self.transaction():
                for table, columns in COLUMNS.items():
                    order = " ORDER BY rowid" if table in ("member", "token") else ""
                    marks = ", ".join("?" * (columns.count(",") + 1))
                    for row in own.rows(f"SELECT {columns} FROM {table}{order}"):
                        self.run(f"INSERT INTO {table} ({columns}) VALUES ({marks})", *row)
                        count += 1
                for table in ("release", "rollout"):
                    self.rows(
                        f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "
                        f"(SELECT COALESCE(MAX(id), 0) + 1 FROM {table}), false)"
                    )
        finally:
            own.close()
        return count


def open_database(data: Path, url: str = "", holder: str = "hub") -> Database:
    """The database of a locked data folder; the first time with ``url``, what its SQLite file holds moves there.

    Raises:
        DataFolderError: ``url`` is none, or another than the folder's hubs share.
        LeaseHeldError, DatabaseLostError: As ``Database`` does.
    """
    known, given = known_url(data), checked_url(url) if url else ""
    if known and given and known != given:
        raise DataFolderError(
            f"the hubs of {data} share {known}, came --database {given}; give that one, or none"
        )
    path = data / DATABASE_FILE
    if not known and not given:
        return Database(path)
    database = Database(path, known or given, holder)
    try:
        if not known:
            if path.is_file():
                if database.rows("SELECT 1 FROM audit LIMIT 1"):
                    raise DataFolderError(
                        f"{given} holds a fleet already, and {path} another; give an empty database"
                    )
                database.take_in(path)
            _remember(data, given)
    except SQLAlchemyError as error:
        database.close()
        raise database.lost(error) from None
    except BaseException:
        database.close()
        raise
    return database


def _remember(data: Path, url: str) -> None:
    from contracts.atomic import write_atomically

    write_atomically(data / DATABASE_URL_FILE, url.encode() + b"\n")
    if (data / DATABASE_FILE).is_file():
        (data / DATABASE_FILE).rename(data / f"{DATABASE_FILE}.moved")


def _engine(url: str | URL) -> Engine:
    shared = str(url).startswith(DRIVER)
    settings: dict[str, Any] = {"timeout": DATABASE_BUSY_MS / 1000}
    if shared:
        settings = {"connect_timeout": 5, "options": _SETTINGS, "tcp_user_timeout": int(ANSWER_MAX_S * 1000)}
    try:
        return create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args=settings)
    except ModuleNotFoundError:
        raise DataFolderError(
            "PostgreSQL needs a driver that is not here; install it: pip install 'outrider[postgres]'"
        ) from None


def _execute(connection: Connection, statement: str, values: tuple[Value, ...]) -> Any:
    if connection.dialect.name == "postgresql":
        statement, values = _in_words_of_postgresql(statement, values)
    return connection.exec_driver_sql(statement, values)


def _in_words_of_postgresql(statement: str, values: tuple[Value, ...]) -> tuple[str, tuple[Value, ...]]:
    """psycopg's own mark for a value; PostgreSQL's text holds no NUL, a robot's name of its version might."""
    safe = tuple(one.replace("\0", "\ufffd") if isinstance(one, str) else one for one in values)
    return statement.replace("?", "%s"), safe


def _rows(connection: Connection, query: str, values: tuple[Value, ...]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in _execute(connection, query, values).fetchall()]
