"""Are the faults that users found mended, each with its whole kind?

Each fault names the tests of its kind; a fault counts as mended when every one of them passes
(or is skipped for want of a package, which is told). Nothing else is looked at.

    python -m experiments.cases_mended
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "experiments" / "results" / "cases_mended.json"

FAULTS: dict[str, tuple[str, ...]] = {
    "results.equal_accuracies": (
        "nas/stages/test_search_stage.py::test_equal_accuracies_have_no_rank_correlation_and_are_written",
        "nas/record/test_json_lines.py::test_undefined_numbers_are_null_so_that_every_reader_reads_the_line",
    ),
    "results.own_modules_by_the_seed": (
        "search_spaces/spaces/test_registry.py",
        "search_spaces/test_seeds.py",
        "supernet/training/test_distributed.py",
    ),
    "results.another_network_is_left_out": ("nas/models/test_parity.py",),
    "results.number_of_evaluations": (
        "nas/stages/test_search_stage.py::test_a_resumed_search_that_chooses_otherwise_keeps_to_the_number_of_evaluations",
    ),
    "results.any_name_of_a_folder": (
        "nas/record/test_evaluations.py::test_any_name_of_a_folder_is_its_own_study",
    ),
    "results.verification_catches_what_it_may": ("nas/stages/test_verification.py",),
    "results.damaged_checkpoint": ("supernet/training/test_checkpoint.py",),
    "results.impossible_latency": (
        "devices/measuring/test_measurement.py",
        "devices/test_device.py",
    ),
    "foreign.ids": ("nas/models/test_hand_over.py",),
    "foreign.code": ("nas/job/test_trust.py",),
    "foreign.yaml": ("nas/job/test_yaml_source.py",),
    "foreign.tables": ("search_spaces/tables/test_files.py",),
    "data.pictures": ("nas/data/test_pictures.py",),
    "data.arrays": ("nas/data/test_splits.py",),
    "data.samples_export": ("nas/cli/test_device.py::test_a_store_is_exported",),
    "hub.model_sizes": ("devices/untrusted/test_model_check.py",),
    "hub.interface": ("devices/fleet/hub/test_app.py",),
    "hub.connections": (
        "devices/fleet/hub/test_connections.py",
        "devices/fleet/hub/test_tls.py",
    ),
    "hub.admin_token": ("devices/fleet/test_token_file.py",),
    "agent.answers": ("devices/fleet/test_link.py",),
    "agent.job_parameters": ("devices/fleet/agent/test_agent.py",),
    "processes.workers": ("nas/executors/test_executors.py",),
    "processes.memory": ("nas/cli/test_main.py::test_memory_that_runs_out_is_no_traceback",),
    "processes.passwords": ("nas/record/test_database_url.py",),
    "processes.folders": ("devices/test_user_folders.py",),
    "seen.cards_of_other_tasks": ("nas/models/test_card.py",),
    "seen.fixed_batch": (
        "nas/models/test_parity.py::test_a_file_of_a_fixed_batch_is_compared_like_any_other",
    ),
    "seen.busy_dry_run": (
        "nas/stages/test_dry_run.py::test_a_machine_too_busy_for_one_timed_pass_has_a_throughput_all_the_same",
    ),
    "seen.report_on_a_phone": (
        "nas/report/test_browser.py::test_a_phone_shows_every_part_and_the_latency_without_scrolling_sideways",
    ),
    "seen.command_to_repeat": ("nas/record/test_run_folder.py",),
}
"""Fault -> tests of its kind, under ``tests/``."""


def run_tests(names: Sequence[str], report: Path) -> dict[str, str]:
    """Run tests once; return test -> ``passed``, ``failed`` or ``skipped``.

    Args:
        names: files or single tests, under ``tests/``.
        report: file for the outcomes, JUnit's XML.
    """
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
         *(f"tests/{name}" for name in names)],
        cwd=ROOT, check=False,
    )  # fmt: skip
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        module = str(case.get("classname")).removeprefix("tests.").replace(".", "/")
        kinds = {child.tag for child in case}
        bad = kinds & {"failure", "error"}
        outcome = "failed" if bad else "skipped" if "skipped" in kinds else "passed"
        found[f"{module}.py::{case.get('name')}"] = outcome
    return found


def judged(tests: Sequence[str], outcomes: Mapping[str, str]) -> dict[str, Any]:
    """Return how the tests of one fault went, and whether it is mended."""
    own = [
        outcome
        for test, outcome in outcomes.items()
        if any(test == name or test.startswith((f"{name}::", f"{name}[")) for name in tests)
    ]
    counts = {kind: own.count(kind) for kind in ("passed", "failed", "skipped")}
    mended = counts["passed"] > 0 and not counts["failed"]
    return {"tests": list(tests), **counts, "mended": mended}


def main() -> None:
    """Run the tests of every fault and record the claim ``cases.mended``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="faults whose name begins so; records no claim")
    only = parser.parse_args().only
    chosen = {k: v for k, v in FAULTS.items() if only is None or k.startswith(only)}
    names = sorted({name for tests in chosen.values() for name in tests})
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run_tests(names, Path(folder) / "outcomes.xml")
    found = {name: judged(tests, outcomes) for name, tests in chosen.items()}
    for name, one in found.items():
        print(name, "mended" if one["mended"] else f"NOT MENDED: {one}", flush=True)
    if only is not None:
        return
    mended = sum(one["mended"] for one in found.values())
    write_json_atomic(
        RESULT,
        {
            "faults": found,
            "failed": sorted(test for test, outcome in outcomes.items() if outcome == "failed"),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "load": os.getloadavg(),
            "command": "python -m experiments.cases_mended",
        },
    )
    record_claim(
        "cases.mended",
        {"mended": mended, "of": len(found)},
        {"mended": len(found), "of": len(found)},
        mended == len(found),
        str(RESULT.relative_to(ROOT)),
        "python -m experiments.cases_mended",
    )


if __name__ == "__main__":
    main()
