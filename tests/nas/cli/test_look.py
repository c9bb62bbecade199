"""``nas report``, ``nas watch``, ``nas dashboard`` and the page of ``nas run``."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from nas.cli.look import page_of
from nas.cli.main import app
from nas.job.schema import Job
from nas.record.run_folder import RunStore
from tests.nas.record.begun_run import JOB

STORED = Path(__file__).parents[3] / "experiments" / "notebooks" / "stored" / "relaxed"


@pytest.fixture
def finished(tmp_path):
    return Path(shutil.copytree(STORED, tmp_path / "finished"))


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_report_is_told_to_trackers_with_their_options(finished, monkeypatch):
    import nas.trackers.told as told

    seen = []
    monkeypatch.setattr(told, "make_tracker", lambda name, options: None)
    monkeypatch.setattr(told, "log_run", lambda run, name, options: seen.append((name, options)))
    done = call(
        "report", finished, "--track", "wandb", "--track", "tensorboard",
        "--track-option", "wandb.mode=offline", "--track-option", "wandb.tags=[a, b]",
        "--mlflow", "sqlite:///m.db",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert seen == [
        ("wandb", {"mode": "offline", "tags": ["a", "b"]}),
        ("tensorboard", {}),
        ("mlflow", {"uri": "sqlite:///m.db"}),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--track", "wandbb"], "did you mean 'wandb'"),
        (
            ["--track", "wandb", "--track-option", "mode=offline"],
            "name the tracker, as in wandb.mode",
        ),
        (["--track-option", "wandb.mode=offline"], "there is no --track wandb"),
        (["--mlflow", "sqlite:///m.db", "--compare", "."], "--compare goes without"),
    ],
)
def test_what_does_not_fit_is_told_before_the_report_is_written(finished, arguments, message):
    (finished / "report.html").unlink(missing_ok=True)
    done = call("report", finished, *arguments)
    assert done.exit_code == 2 and message in done.stderr
    assert not (finished / "report.html").exists()


@pytest.mark.parametrize("command", ["watch", "dashboard"])
def test_a_folder_that_is_no_run_is_refused(command, tmp_path):
    done = call(command, tmp_path / "none")
    assert done.exit_code == 2 and "does not exist" in done.stderr
    if command == "watch":
        assert "no manifest.json" in call(command, tmp_path).stderr


def test_watch_tells_its_address_and_ends_with_ctrl_c(tmp_path, monkeypatch):
    from nas.live.loopback import LoopbackServer

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(LoopbackServer, "serve", interrupted)
    RunStore.create(tmp_path / "run", {"job": Job.model_validate(JOB).resolved()})
    done = call("watch", tmp_path / "run")
    assert done.exit_code == 0
    assert re.match(r"http://127\.0\.0\.1:\d+/#[\w-]{32}", done.stdout)


def test_the_page_of_a_run_is_closed_unless_asked_for(tmp_path, capsys):
    with page_of(tmp_path, False, None):
        pass
    assert capsys.readouterr().err == ""
    with page_of(tmp_path, True, None):
        address = re.search(r"page: (\S+)", capsys.readouterr().err)[1]
        assert httpx.get(address).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(address)
