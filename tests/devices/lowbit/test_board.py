"""A board's result file, and the command that brings it back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("needs_compiler")


@pytest.mark.parametrize("bits", [(8, 8), (1, 4)])
def test_a_layer_is_timed_by_its_fastest_kernel(bits):
    from devices.lowbit.board import SHAPES, codes_of, timed

    row = timed(SHAPES["1x1, 14x14x256 to 64"], *bits, rounds=2)
    assert row["kernel"] and 0 < row["median_ms"] < 1000
    codes = codes_of(bits[0])
    # 8 bits are kept within 7, so that no kernel saturates; one bit has no zero.
    assert np.abs(codes).max() == (64 if bits[0] == 8 else 1) and (0 in codes) == (bits[0] > 1)


@pytest.mark.slow
def test_one_command_brings_the_result_of_a_board_back(tmp_path):
    if not shutil.which("tar"):
        pytest.skip("no tar")
    # A board is a shell of its own: other variables, and no clone on the path.
    ssh = tmp_path / "ssh"
    kept = f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}"
    cache = os.environ.get("EDGE_NAS_CACHE", "")
    ssh.write_text(
        f'#!/bin/sh\n[ "$1" = me@board ] || exit 9\nshift\n'
        f'exec env -i HOME="$HOME" {"EDGE_NAS_CACHE=" + cache if cache else ""} "{kept}" '
        'EDGE_NAS_BOARD_ROUNDS=1 sh -c "$*"\n'
    )
    ssh.chmod(0o755)
    result = tmp_path / "result.json"
    done = subprocess.run(
        [ROOT / "scripts" / "measure-board", "me@board", result],
        env={**os.environ, "SSH": str(ssh)}, cwd=tmp_path, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    assert found["selftest"]["exact"] and found["machine"]["features"][-1] == "portable"
    assert {row["instructions"] for row in found["rows"]} >= {"all"}
    assert all(row["median_ms"] > 0 for row in found["rows"])
    assert not list(tmp_path.glob("*.part"))


def test_a_board_that_cannot_be_reached_leaves_nothing_behind(tmp_path):
    done = subprocess.run(
        [ROOT / "scripts" / "measure-board", "me@board", tmp_path / "r.json"],
        env={**os.environ, "SSH": "false"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and not list(tmp_path.iterdir())
