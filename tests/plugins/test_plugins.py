"""Three packages of their own, a metric, a runtime and a kind of block, each one file and one
registration: a job uses all of them, and each keeps the contract of its kind."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.long

JOB = """
name: plugged
data: {name: digits, validation: 100, calibration: 64}
space: {name: plain_residual, weight_bits: [4, 8], activation_bits: [8]}
supernet: {epochs: 1, batch_size: 128}
devices:
  - {name: slow, runtime: unoptimised}
protocol: {processes: 2, runs: 4, min_sample_ms: 0.2, warmup_max_s: 0.5, retries: 0}
search:
  objectives: [accuracy, layers]
  constraints: {layers: {max: 5}}
  strategy: random
  initial: 4
  evaluations: 4
  latency_samples: 2
  front_size: 2
"""

CONTRACTS = """
import pytest
from devices.testing.runtime import RuntimeContract
from search_spaces.spaces.registry import build_space
from search_spaces.testing import PlannedSpaceContract
from supernet.testing import SupernetContract

@pytest.fixture(scope="class")
def space():
    return build_space("plain_residual", input_channels=1, outputs=5)

class TestRuntime(RuntimeContract):
    @pytest.fixture
    def runtime_case(self):
        return "unoptimised", {}

class TestSpace(PlannedSpaceContract):
    @pytest.fixture
    def space(self):
        return build_space("plain_residual", input_channels=1, outputs=5)

class TestSupernet(SupernetContract):
    @pytest.fixture(scope="class")
    def space(self):
        return build_space("plain_residual", input_channels=1, outputs=5)
"""


@pytest.fixture(scope="module")
def call(environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    run.folder = folder
    return run


def test_a_job_uses_all_three(call):
    (call.folder / "job.yaml").write_text(JOB)
    done = call("nas", "run", "job.yaml", "--output", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((call.folder / "run" / "results.json").read_text())
    assert [goal for goal in results["goals"]] == ["accuracy", "layers"]
    assert results["front"]
    for entry in results["front"]:
        assert entry["metrics"]["layers"] == entry["costs"]["layers"] <= 5
        kinds = {block["kind"] for block in entry["plan"]["blocks"]}
        assert "plain_residual" in kinds
        assert entry["costs"]["peak_memory_kib"] > 0
    with (call.folder / "run" / "front.csv").open() as file:
        assert {row["runtime"].split()[0] for row in csv.DictReader(file)} == {"unoptimised"}


def test_without_the_package_its_names_are_unknown(call):
    import os

    bare = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    from tests.plugins.conftest import HERE

    bare["PYTHONPATH"] = str(HERE.parents[1])
    (call.folder / "job.yaml").write_text(JOB)
    done = subprocess.run(
        [sys.executable, "-m", "nas", "validate", "job.yaml"],
        cwd=call.folder, env=bare, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    for message in (
        "unknown search space 'plain_residual'",
        "unknown runtime 'unoptimised'",
        "unknown objective 'layers'",
        "unknown key 'layers' in search.constraints",
    ):
        assert message in done.stderr


def test_they_keep_the_contracts(call):
    (call.folder / "test_contracts.py").write_text(CONTRACTS)
    done = call("pytest", "-q", "-p", "no:cacheprovider", "test_contracts.py")
    assert done.returncode == 0, done.stdout + done.stderr
