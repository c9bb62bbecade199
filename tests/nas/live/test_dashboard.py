"""optuna-dashboard on a run's study: it shows it, and can change nothing."""

from __future__ import annotations

import sys

import httpx
import pytest

from nas.job.schema import Job
from nas.live.dashboard import dashboard_server
from nas.record.run_folder import RunStore
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError
from tests.nas.record.begun_run import JOB, evaluated


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore.create(tmp_path / "run", {"job": Job.model_validate(JOB).resolved()})


def test_it_shows_the_study_of_the_run(store):
    pytest.importorskip("optuna_dashboard")
    evaluated(store, [(0.5, 5.0), (0.7, 6.0)])
    server = dashboard_server(store.folder).start()
    try:
        (study,) = httpx.get(f"{server.url}api/studies").json()["study_summaries"]
        assert study["study_name"] == "nas/search"
        page = httpx.get(f"{server.url}dashboard/", follow_redirects=True)
        assert page.status_code == 200 and "text/html" in page.headers["content-type"]
        detail = httpx.get(f"{server.url}api/studies/{study['study_id']}").json()
        assert [trial["values"] for trial in detail["trials"]] == [[0.5, 5.0], [0.7, 6.0]]
        gone = httpx.delete(f"{server.url}api/studies/{study['study_id']}")
        assert gone.status_code == 405
        assert httpx.get(f"{server.url}api/studies").json()["study_summaries"]
        rebound = {"Host": "evil.example"}
        assert httpx.get(f"{server.url}api/studies", headers=rebound).status_code == 421
    finally:
        server.close()


def test_a_run_without_a_study_is_told(store, tmp_path, monkeypatch):
    pytest.importorskip("optuna_dashboard")
    with pytest.raises(EnvironmentProblem, match="has no study yet"):
        dashboard_server(store.folder)
    with pytest.raises(InputError, match="no run folder"):
        dashboard_server(tmp_path)


def test_without_the_package_the_extra_is_named(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(MissingExtraError, match=r"edge-nas\[dashboard\]"):
        dashboard_server(store.folder)
