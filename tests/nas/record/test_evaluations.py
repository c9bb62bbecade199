import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.record.evaluations import StudyRecord
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.space import Choice, Condition, SearchSpace

SPACE = SearchSpace(
    "tiny",
    [
        Choice("depth", (1, 2)),
        Choice("0.bits", (2, 4, 8)),
        Choice("1.bits", (2, 4, 8), (Condition("depth", frozenset([2])),)),
        Choice("block", ("conv", "fused")),
        Choice("width", (0.5, 1.0)),
    ],
)
ACCURACY, LATENCY = Metric("accuracy"), Metric("latency_ms", "cpu")


def open_record(path, **changes):
    arguments = {
        "space": SPACE,
        "goals": [Goal(ACCURACY), Goal(LATENCY)],
        "constraints": [Constraint(LATENCY, 2.0)],
    }
    return StudyRecord(path, **{**arguments, **changes})


def archs(n=8, seed=0):
    drawn = SPACE.decode(SPACE.sample_genes(np.random.default_rng(seed), 200))
    return list(dict.fromkeys(drawn))[:n]


def metrics(i=0):
    return {"accuracy": 0.5 + i / 100, "latency_ms[cpu]": 1.5 + i / 4, "macs": 1000.0 * i}


def test_what_is_recorded_is_found_after_reopening(tmp_path):
    path = tmp_path / "run" / "study.db"
    with open_record(path) as record:
        for i, arch in enumerate(archs()):
            assert record.lookup(arch) is None
            record.record(arch, metrics(i), attributes={"round": i // 4, "seed": 7})
    with open_record(path) as record:
        for i, arch in enumerate(archs()):
            assert record.lookup(arch) == metrics(i)
            assert record.lookup(arch, "verify") is None
        found = record.evaluations()
    assert [e.arch for e in found] == archs()
    assert [e.number for e in found] == list(range(8))
    assert found[5].attributes == {"round": 1, "seed": 7}
    assert found[5].violations == {"latency_ms[cpu] max": pytest.approx(0.375)}


def test_recording_again_keeps_the_first(tmp_path):
    with open_record(tmp_path / "s.db") as record:
        arch = archs()[0]
        record.record(arch, metrics(1))
        assert record.record(arch, metrics(2)) == metrics(1)
        assert record.record(arch, metrics(2), stage="verify") == metrics(2)
        assert len(record.evaluations()) == len(record.evaluations("verify")) == 1
        assert len(record.study().trials) == 1


def test_trials_are_what_optuna_expects(tmp_path):
    import optuna

    with open_record(tmp_path / "s.db") as record:
        for i, arch in enumerate(archs()):
            record.record(arch, metrics(i))
        study = record.study()
        trial = study.trials[3]
        arch = archs()[3]
        # Inactive choices are absent, active ones categorical with all their options.
        assert trial.params == dict(arch.items)
        assert trial.distributions["0.bits"] == optuna.distributions.CategoricalDistribution(
            (2, 4, 8)
        )
        assert trial.values == [metrics(3)["accuracy"], metrics(3)["latency_ms[cpu]"]]
        assert trial.constraints == {"latency_ms[cpu] max": pytest.approx(0.125)}
        assert trial.user_attrs["id"] == arch.id
        assert SPACE.parse(trial.user_attrs["arch"]) == arch
        assert study.metric_names == ["accuracy", "latency_ms[cpu]"]
        assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
        # The front is of feasible trials: those within 2 ms are the first three.
        assert {t.number for t in study.best_trials} == {0, 1, 2}


def test_plots_work_on_the_file(tmp_path):
    pytest.importorskip("plotly")
    import optuna

    path = tmp_path / "s.db"
    with open_record(path) as record:
        for i, arch in enumerate(archs()):
            record.record(arch, metrics(i))
    # Opened as a stranger would.
    study = optuna.load_study(study_name="nas/search", storage=f"sqlite:///{path}")
    figure = optuna.visualization.plot_pareto_front(study)
    assert figure.layout.xaxis.title.text == "accuracy"
    assert sum(len(trace.x) for trace in figure.data) == 8
    optuna.visualization.plot_optimization_history(study, target=lambda t: t.values[0])
    optuna.visualization.plot_slice(study, target=lambda t: t.values[0])


def test_failures_are_kept_apart(tmp_path):
    with open_record(tmp_path / "s.db") as record:
        a, b = archs()[:2]
        record.record_failure(a, "did not converge", attributes={"round": 0})
        record.record(b, metrics())
        assert record.lookup(a) is None
        assert record.failures() == [(a, "did not converge")]
        record.record(a, metrics(1))
        assert record.lookup(a) == metrics(1)
        assert [e.arch for e in record.evaluations()] == [b, a]


def test_undefined_metrics(tmp_path):
    with open_record(tmp_path / "s.db") as record:
        arch = archs()[0]
        with pytest.raises(InputError, match="without a finite accuracy"):
            record.record(arch, {**metrics(), "accuracy": float("nan")})
        with pytest.raises(InputError, match=r"without a finite latency_ms\[cpu\]"):
            record.record(arch, {"accuracy": 0.5})
        record.record(arch, {**metrics(), "macs": float("nan")})
        assert np.isnan(record.lookup(arch)["macs"])
        with pytest.raises(InputError, match="'id' is set by the record"):
            record.record(archs()[1], metrics(), attributes={"id": 3})


def test_single_objective(tmp_path):
    with open_record(tmp_path / "s.db", goals=[Goal(ACCURACY)]) as record:
        record.record(archs()[0], metrics())
        assert record.study().best_value == metrics()["accuracy"]


def test_a_record_of_another_job_is_refused_and_a_changed_budget_is_not(tmp_path):
    path = tmp_path / "s.db"
    with open_record(path) as record:
        record.record(archs()[0], metrics(4))
    for goals in ([Goal(LATENCY), Goal(ACCURACY)], [Goal(ACCURACY), Goal(Metric("macs"))]):
        with (
            open_record(path, goals=goals) as record,
            pytest.raises(InputError, match="objectives"),
        ):
            record.study()
    other = SearchSpace("other", SPACE.choices)
    with open_record(path, space=other) as record, pytest.raises(InputError, match="has space"):
        record.study()
    with open_record(path) as record, pytest.raises(InputError, match="space 'other'"):
        record.record(other.largest(), metrics())
    with open_record(path, constraints=[Constraint(LATENCY, 3.0)]) as record:
        assert record.lookup(archs()[0]) == metrics(4)


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "s.db"
    path.write_text("not a database, but long enough to be looked at" * 100)
    with pytest.raises(EnvironmentProblem, match=r"s\.db cannot be opened"):
        open_record(path)


def test_optuna_is_quiet_and_its_verbosity_untouched(tmp_path, capfd):
    import optuna

    before = optuna.logging.get_verbosity()
    with open_record(tmp_path / "s.db") as record:
        record.record(archs()[0], metrics())
    assert optuna.logging.get_verbosity() == before
    out, err = capfd.readouterr()
    assert out == err == ""


WORKER = """
    import sys
    sys.path.insert(0, {here!r})
    import test_evaluations as t
    start = int(sys.argv[2])
    record = t.open_record(sys.argv[1])
    archs = t.archs(24)
    for k in range(24):
        i = (start + k) % 24
        done = record.lookup(archs[i]) is not None
        if not done:
            record.record(archs[i], t.metrics(i))
        print(i, done, flush=True)
"""


def spawn(path, start):
    code = textwrap.dedent(WORKER.format(here=os.path.dirname(__file__)))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(start)], stdout=subprocess.PIPE, text=True
    )


def check_complete(path):
    with open_record(path) as record:
        found = record.evaluations()
        assert {e.arch for e in found} == set(archs(24))
        assert len(record.study().trials) == len(found) == 24
        for e in found:
            assert e.metrics == metrics(archs(24).index(e.arch))


def test_two_processes_share_a_record(tmp_path):
    path = tmp_path / "s.db"
    workers = [spawn(path, 0), spawn(path, 6)]
    for worker in workers:
        worker.communicate(timeout=120)
        assert worker.returncode == 0
    check_complete(path)


def test_kills_lose_and_repeat_nothing(tmp_path):
    path = tmp_path / "s.db"
    printed = []
    for wait in (0.0, 0.05, 0.13):
        worker = spawn(path, 0)
        # Kill at an arbitrary moment after some evaluations were reported as recorded.
        for _ in range(4):
            line = worker.stdout.readline()
            printed.append(int(line.split()[0]))
        time.sleep(wait)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        with open_record(path) as record:
            for i in printed:
                assert record.lookup(archs(24)[i]) == metrics(i)
    last = spawn(path, 0)
    out, _ = last.communicate(timeout=120)
    assert sum(line.endswith("True") for line in out.splitlines()) >= 4
    check_complete(path)


def test_attributes_must_be_json(tmp_path):
    with open_record(tmp_path / "s.db") as record:
        record.record(archs()[0], metrics(), attributes={"note": {"a": [1, "x", None]}})
        assert json.dumps(record.evaluations()[0].attributes)
        with pytest.raises(InputError, match="JSON"):
            record.record(archs()[1], metrics(), attributes={"note": object()})


def test_a_database_url_of_a_file_is_that_file(tmp_path):
    path = tmp_path / "s.db"
    with open_record(f"sqlite:///{path}") as record:
        record.record(archs()[0], metrics())
    # With the lock and the write-ahead log of a path.
    assert path.with_name("s.db.lock").exists()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with open_record(path) as record:
        assert record.lookup(archs()[0]) == metrics()


def test_a_database_without_its_driver_is_no_traceback():
    with pytest.raises(EnvironmentProblem, match="driver for oracle:// that is not installed"):
        open_record("oracle://host/nas")


@pytest.mark.parametrize("name", ["a?b", "a#b", "50%41", "{x}", "a b", "é&=1;"])
def test_any_name_of_a_folder_is_its_own_study(tmp_path, name):
    for folder in (tmp_path / name, tmp_path / name.split("?")[0][:1]):
        with open_record(folder / "study.db") as record:
            assert record.evaluations() == []
            record.record(archs()[0], metrics())
        assert (folder / "study.db").is_file()
    found = {p.name for p in tmp_path.iterdir()}
    assert found == {name, name.split("?")[0][:1]}
