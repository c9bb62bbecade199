"""What a device trains within its memory, from the command."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from nas.cli.study import app
from tests.nas.studies.small_run import SPACE, run_of


def test_the_command_chooses_within_the_memory_and_trains_in_integers(tmp_path):
    folder = run_of(tmp_path / "run", SPACE)
    call = ["update", str(folder), "--memory-kib", "8", "--shares", "0.5,1", "--validation-images",
            "64"]  # fmt: skip
    done = CliRunner().invoke(app, [*call, "--steps", "2"])
    assert done.exit_code == 0, done.output
    result = json.loads((folder / "studies" / "update" / "update.json").read_text())
    chosen, everything = result["updates"]["chosen"], result["updates"]["everything"]
    assert chosen["layers"] and chosen["peak_kib"] <= 8 < everything["peak_kib"]
    assert set(everything["layers"]) == set(result["contributions"])
    assert all(0 <= row["metric"] <= 1 for row in result["updates"].values())
    assert set(chosen["bytes"]) >= {"kept", "masks", "gradients", "optimizer", "weights", "peak"}
    assert "everything:" in done.output and "weight gradients" in done.output


def test_memory_that_is_too_little_is_told(tmp_path):
    folder = run_of(tmp_path / "run", SPACE)
    done = CliRunner().invoke(app, ["update", str(folder), "--memory-kib", "0.5"])
    assert done.exit_code and "alone needs" in str(done.exception)
    done = CliRunner().invoke(app, ["update", str(folder), "--memory-kib", "9", "--shares", "all"])
    assert done.exit_code and "--shares 'all' is no list" in str(done.exception)
