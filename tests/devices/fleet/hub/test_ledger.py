"""The hub's database: many changes to one flush, each undone alone."""

import sqlite3
import threading

import pytest

from devices.fleet.hub.ledger import Ledger
from search_spaces.errors import EnvironmentProblem


class Connection(sqlite3.Connection):
    """A connection on a disk that can be full."""

    full = False
    commits = 0

    def execute(self, sql, *values):
        if sql == "COMMIT":
            Connection.commits += 1
            if Connection.full:
                super().execute("ROLLBACK")
                raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *values)


@pytest.fixture
def ledger(tmp_path):
    Connection.full, Connection.commits = False, 0

    def connect(path, **options):
        return sqlite3.connect(path, factory=Connection, **options)

    made = Ledger(tmp_path / "hub.db", connect=connect)
    yield made
    made.close()


def add(what, after=lambda: None):
    def change(transaction):
        transaction.event(0.0, what)
        transaction.after(after)
        return what

    return change


def events(ledger):
    return [
        row[0] for row in ledger.call(lambda t: t.db.execute("SELECT what FROM events").fetchall())
    ]


def test_changes_are_kept(ledger, tmp_path):
    assert ledger.call(add("one")) == "one"
    ledger.close()
    again = Ledger(tmp_path / "hub.db")
    assert events(again) == ["one"]
    again.close()


def test_a_change_that_fails_undoes_itself_alone(ledger):
    def fails(transaction):
        transaction.event(0.0, "half")
        transaction.after(lambda: done.append("half"))
        raise ValueError("no")

    done = []
    gate = hold(ledger)
    futures = [ledger.submit(change) for change in (add("one"), fails, add("two"))]
    gate.set()
    assert futures[0].result() == "one" and futures[2].result() == "two"
    with pytest.raises(ValueError):
        futures[1].result()
    assert events(ledger) == ["one", "two"] and done == []


def hold(ledger):
    """Occupy the ledger, so that what is submitted meanwhile becomes one flush."""
    gate = threading.Event()
    entered = threading.Event()
    ledger.submit(lambda t: (entered.set(), gate.wait(30)))
    entered.wait(30)
    return gate


def test_what_waits_shares_one_flush(ledger):
    gate = hold(ledger)
    futures = [ledger.submit(add(str(i))) for i in range(50)]
    before = Connection.commits
    gate.set()
    assert [future.result() for future in futures] == [str(i) for i in range(50)]
    assert Connection.commits - before <= 2


def test_a_full_disk_keeps_nothing_and_the_ledger_goes_on(ledger):
    done = []
    Connection.full = True
    with pytest.raises(EnvironmentProblem, match="no space left"):
        ledger.call(add("lost", lambda: done.append("lost")))
    Connection.full = False
    assert ledger.call(add("kept", lambda: done.append("kept"))) == "kept"
    assert events(ledger) == ["kept"] and done == ["kept"]
