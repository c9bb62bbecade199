"""Two real processes on one study: nothing evaluated twice, nothing lost."""

import collections
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from nas.fronts.metrics import Goal, Metric
from nas.record.evaluations import StudyRecord
from search_spaces.space import Choice, SearchSpace

SERVER = "EDGE_NAS_TEST_POSTGRESQL"
"""Environment variable with the URL of a database that the tests may write to."""

SPACE = SearchSpace("tiny", [Choice(f"{k}.bits", (2, 4, 8)) for k in range(4)])


def archs(n):
    return SPACE.decode(np.unique(SPACE.sample_genes(np.random.default_rng(0), 300), axis=0)[:n])


def open_record(location, owner=None, name="nas"):
    return StudyRecord(
        location, space=SPACE, goals=[Goal(Metric("accuracy"))], owner=owner, name=name
    )


WORKER = """
    import sys, time
    sys.path.insert(0, {here!r})
    import test_shared_study as t
    location, name, owner, log, seconds = sys.argv[1:]
    record = t.open_record(location, owner, name)
    print("ready", flush=True)
    sys.stdin.readline()
    left = t.archs(20)
    while left:
        for arch in list(left):
            if record.lookup(arch) is None:
                if not record.claim(arch):
                    continue
                if record.lookup(arch) is None:
                    with open(log, "a") as file:
                        file.write(str(arch) + "\\n")
                    time.sleep(float(seconds))
                    record.record(arch, {{"accuracy": 0.5}}, attributes={{"by": owner}})
                else:
                    record.unclaim(arch)
            left.remove(arch)
        time.sleep(0.01)
    record.close()
"""


def spawn(location, name, owner, log, seconds):
    code = textwrap.dedent(WORKER.format(here=os.path.dirname(__file__)))
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(location), name, owner, str(log), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return worker


def locations():
    yield pytest.param("sqlite", id="sqlite")
    yield pytest.param("postgresql", id="postgresql")


@pytest.fixture(params=locations())
def shared(request, tmp_path):
    """Location of a database, and a name of studies that are not there yet."""
    name = f"test-{os.getpid()}-{time.time_ns()}"
    if request.param == "sqlite":
        return tmp_path / "shared.db", name
    url = os.environ.get(SERVER)
    if url is None:
        pytest.skip(f"{SERVER} names no PostgreSQL database")
    return url, name


def test_two_processes_divide_the_work(shared, tmp_path):
    location, name = shared
    log = tmp_path / "evaluated"
    workers = [spawn(location, name, owner, log, 0.05) for owner in "ab"]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=240)
        assert worker.returncode == 0
    counts = collections.Counter(log.read_text().splitlines())
    assert counts == {str(arch): 1 for arch in archs(20)}
    with open_record(location, name=name) as record:
        found = record.evaluations()
        assert len(record.study().trials) == 20
    assert {e.arch for e in found} == set(archs(20))
    assert {e.attributes["by"] for e in found} == {"a", "b"}


def test_the_claims_of_a_killed_process_are_taken_over(tmp_path):
    location, log = tmp_path / "shared.db", tmp_path / "evaluated"
    worker = spawn(location, "nas", "a", log, 60)
    assert worker.stdout.readline() == "ready\n"
    worker.stdin.write("\n")
    worker.stdin.flush()
    while not log.exists() or not log.read_text().endswith("\n"):
        time.sleep(0.02)
    first = SPACE.parse(log.read_text().splitlines()[0])
    with open_record(location, "b") as record:
        assert not record.claim(first)
        assert record.claim(next(a for a in archs(20) if a != first))
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
        assert not record.claim(first)
    # The same process, resumed, need not wait.
    with open_record(location, "a") as record:
        assert record.claim(first)


@pytest.mark.slow
def test_a_claim_that_beats_is_kept_and_a_silent_one_is_not(tmp_path):
    from nas.record.claims import Claims

    with open_record(tmp_path / "s.db") as record:
        engine = record._storage.engine
        alive = Claims(engine, "alive", beat_s=0.05, patience_s=1.0)
        dead = Claims(engine, "dead", beat_s=1e6, patience_s=1.0)
        other = Claims(engine, "other", beat_s=1e6, patience_s=1.0)
        assert alive.take("s", "x") and dead.take("s", "y") and alive.take("s", "x")
        assert not other.take("s", "x") and not other.take("s", "y")
        deadline = time.monotonic() + 60
        while not other.take("s", "y"):
            assert time.monotonic() < deadline
            assert not other.take("s", "x")
            time.sleep(0.05)
        alive.release("s", "x")
        assert other.take("s", "x")
        for claims in (alive, dead, other):
            claims.close()


RUN = """
    import sys, time
    from pathlib import Path
    import nas.stages.worker_tasks
    job, folder, log, me, other = sys.argv[1:]
    original = nas.stages.worker_tasks.evaluation_of

    def counted(evaluator):
        # Both are here before either evaluates anything.
        Path(me).touch()
        deadline = time.monotonic() + 200
        while not Path(other).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        evaluate = original(evaluator)

        def call(item):
            with open(log, "a") as file:
                file.write(item["arch"] + "\\n")
            return evaluate(item)

        return call

    nas.stages.worker_tasks.evaluation_of = counted
    from nas.stages import pipeline
    from nas.job.check import load_job

    pipeline.run(load_job(Path(job)), Path(folder))
"""

JOB = """
name: shared
seed: 3
threads: 1
study: sqlite:///{study}
data: {{name: digits, validation: 0.2, calibration: 128}}
space:
  name: mobilenet
  preset: 8x8
  stages: [{{channels: 8, stride: 1, depths: [1, 2]}}, {{channels: 12, stride: 2, depths: [1, 2]}}]
  stem_channels: 8
  head_channels: 16
  kernels: [3]
  expands: [2, 3]
  weight_bits: [2, 8]
  activation_bits: [4, 8]
supernet: {{epochs: 1, batch_size: 128, warmup_epochs: 0.5}}
protocol:
  {{processes: 2, runs: 5, retries: 0, max_interval: null, max_spread: null, max_drift: null}}
search: {{evaluations: 14, initial: 8, batch: 3, latency_samples: 4, front_size: 2,
  objectives: [accuracy, weights_kib]}}
"""


def test_two_runs_of_one_job_on_one_study(tmp_path):
    job, log = tmp_path / "job.yaml", tmp_path / "evaluated"
    job.write_text(JOB.format(study=tmp_path / "shared.db"))
    code = textwrap.dedent(RUN)
    folders = [tmp_path / "a", tmp_path / "b"]
    here = [tmp_path / "ready-a", tmp_path / "ready-b"]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, (job, folder, log, me, other))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder, me, other in zip(folders, here, here[::-1], strict=True)
    ]
    for run in runs:
        out, _ = run.communicate(timeout=400)
        assert run.returncode == 0, out
    counts = collections.Counter(log.read_text().splitlines())
    assert set(counts.values()) == {1}
    for folder in folders:
        results = json.loads((folder / "results.json").read_text())
        assert len(results["front"]) >= 1
    # With the same seed both take the same path: each evaluation was made by one of them.
    assert len(counts) == 14
