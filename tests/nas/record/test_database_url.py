"""Passwords of databases are shown nowhere and kept where only their owner reads them."""

from __future__ import annotations

import json
import stat

import pytest

from nas.job.schema import Job
from nas.record.database_url import password_of, scrubbed, with_password, without_password
from nas.record.evaluations import StudyRecord
from nas.record.run_folder import RunStore
from search_spaces.errors import EnvironmentProblem
from search_spaces.space import Choice, SearchSpace

ADDRESSES = [
    ("postgresql://me:s3cr3t@host/db", "s3cr3t", "postgresql://me:***@host/db"),
    ("postgresql+psycopg2://me:p@ss:w/rd@host:5432/db", "p@ss:w/rd",
     "postgresql+psycopg2://me:***@host:5432/db"),
    ("mysql://me:x@host", "x", "mysql://me:***@host"),
    ("postgresql://me@host/db", None, "postgresql://me@host/db"),
    ("sqlite:///a/b.db", None, "sqlite:///a/b.db"),
    ("sqlite:////work:1/a@b.db", None, "sqlite:////work:1/a@b.db"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "password", "shown"), ADDRESSES)
def test_a_password_is_taken_out_and_put_back(url, password, shown):
    assert without_password(url) == shown and password_of(url) == password
    assert without_password(shown) == shown and password_of(shown) is None
    if password:
        assert with_password(shown, password) == url
        told = scrubbed(f"could not connect to {url} by {password}", url)
        assert told == f"could not connect to {shown} by ***"


def job(**more) -> Job:
    return Job.model_validate({"name": "j", "data": {"name": "digits"}, **more})


def test_a_manifest_holds_no_password_and_a_resumed_run_has_it(tmp_path):
    address = "postgresql://me:s3cr3t-w0rd@host/db"
    asked = job(study=address)
    store = RunStore.create(tmp_path / "run", {"job": asked.resolved()})
    assert stat.S_IMODE(store.secret.stat().st_mode) == 0o600
    others = [p for p in store.folder.rglob("*") if p.is_file() and p != store.secret]
    assert others and all(b"s3cr3t" not in path.read_bytes() for path in others)
    assert RunStore.open(store.folder).job() == asked
    store.update_manifest(more=1)
    assert "s3cr3t" not in store.manifest_path.read_text()
    # Handed on without the secret it is still a run.
    store.secret.unlink()
    assert json.loads(store.manifest_path.read_text())["job"]["study"] == without_password(address)
    assert RunStore.open(store.folder).job().study == without_password(address)


def test_a_run_without_a_password_keeps_no_secret(tmp_path):
    for address in (None, "postgresql://me@host/db"):
        store = RunStore.create(tmp_path / str(address)[:4], {"job": job(study=address).resolved()})
        assert not store.secret.exists() and store.job().study == address


def test_an_error_of_a_database_says_no_password_and_no_statement():
    pytest.importorskip("psycopg2")
    space = SearchSpace("tiny", [Choice("k", (1, 2))])
    with pytest.raises(EnvironmentProblem) as found:
        StudyRecord(
            "postgresql+psycopg2://me:s3cr3t@127.0.0.1:1/db", space=space, goals=[], owner="a"
        )
    assert "s3cr3t" not in str(found.value) and "sqlalche.me" not in str(found.value)
    assert "me:***@127.0.0.1:1" in str(found.value)
