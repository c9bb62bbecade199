"""What is peculiar to a database server: its lock, its driver, and how it words errors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from nas.record.database_url import scrubbed, without_password
from search_spaces.errors import EnvironmentProblem

if TYPE_CHECKING:
    import sqlalchemy as sa

_LOCK_KEY = 0x6E61735F  # "nas_": one lock for all studies of a database


class ServerLock:
    """An advisory lock of PostgreSQL, held by a session, so that it ends with its process.

    Re-entrant for one object, like the lock of a file.
    """

    def __init__(self, url: str) -> None:
        import sqlalchemy as sa

        self._url = url
        try:
            self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        except ModuleNotFoundError as error:
            raise EnvironmentProblem(
                f"the study {url.split('@')[-1]} needs a driver that is not installed: {error}; "
                f"{driver_hint(url.partition('://')[0]).strip(' ()')}"
            ) from error
        self._connection: sa.Connection | None = None
        self._depth = 0

    def __enter__(self) -> None:
        import sqlalchemy as sa

        if not self._depth:
            try:
                self._connection = self._engine.connect()
                self._connection.execute(sa.text(f"SELECT pg_advisory_lock({_LOCK_KEY})"))
            except sa.exc.SQLAlchemyError as error:
                raise EnvironmentProblem(
                    f"the study {without_password(self._url)} cannot be reached: "
                    f"{scrubbed(first_line(error), self._url)}"
                ) from None
        self._depth += 1

    def __exit__(self, *exc: object) -> None:
        import sqlalchemy as sa

        self._depth -= 1
        if not self._depth and self._connection is not None:
            connection, self._connection = self._connection, None
            # Without a pool, closing ends the session and with it the lock. A server that went
            # away has ended it already; whatever was being done has told that.
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.close()

    def close(self) -> None:
        """Give up the engine; the object cannot be used afterwards."""
        self._engine.dispose()


def driver_hint(scheme: str) -> str:
    """Return how to install what a PostgreSQL address needs; SQLAlchemy's own choice is new."""
    if not scheme.startswith("postgres"):
        return ""
    if scheme.endswith("+psycopg2"):
        return " (pip install psycopg2-binary)"
    return " (pip install 'psycopg[binary]', or write postgresql+psycopg2:// and install that)"


def first_line(error: BaseException) -> str:
    """Return what a driver says, without the statement and link that SQLAlchemy adds."""
    return " ".join(str(error).split("\n[SQL")[0].split("\n(Background")[0].split())


def is_postgresql(url: str) -> bool:
    """Whether an address is that of a PostgreSQL server."""
    return url.split("://")[0].split("+")[0] in ("postgresql", "postgres")
