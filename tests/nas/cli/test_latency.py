from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nas.cli.latency import app, names
from search_spaces.errors import InputError
from search_spaces.spaces.registry import build_space
from search_spaces.tables.synthetic import synthetic_table
from search_spaces.tables.table import write_table

runner = CliRunner()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.csv"
    write_table(synthetic_table(architectures=120, devices=4, positions=4), path)
    return path


def run(*arguments: object) -> str:
    result = runner.invoke(app, [str(a) for a in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.mark.slow
def test_benchmark_writes_the_documented_records(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "records.json"
    arguments = "--space tokens --arch-column arch --meta-train device0,device1 --test device3"
    text = run(
        "benchmark",
        table,
        *arguments.split(),
        *["--measurements", "8", "--pool", "60", "--holdout", "50", "--seeds", "2", "--json"],
        out,
    )
    assert "transfer_gp" in text
    records = json.loads(out.read_text())
    assert [r["seed"] for r in records] == [0, 1]
    assert set(records[0]) == {
        "method",
        "device",
        "seed",
        "measurements",
        "spearman",
        "spearman_trimmed",
        "kendall",
        "rmse_ms",
        "mape",
        "within_10_percent",
        "coverage_90",
        "adapt_ms",
    }
    assert {r["method"] for r in records} == {"transfer_gp"}


def test_fit_suggest_adapt_predict(table: Path, tmp_path: Path) -> None:
    known, board = tmp_path / "known.safetensors", tmp_path / "board.safetensors"
    run("fit", table, "-o", known, "--devices", "device0,device1,device2")
    chosen = run("suggest", known, table, "-n", 6).splitlines()
    assert len(set(chosen)) == 6
    rows = {row["arch"]: row for row in csv.DictReader(table.open().readlines()[2:])}
    measured = tmp_path / "measured.csv"
    lines = [f"{arch},{rows[arch]['device3']}" for arch in chosen]
    measured.write_text("\n".join(["arch,board", *lines]) + "\n")
    run("adapt", known, measured, "-o", board)
    out = tmp_path / "predictions.csv"
    run("predict", board, table, "-o", out, "--budget", 5)
    predictions = list(csv.DictReader(out.open()))
    assert len(predictions) == 120
    first = {k: float(v) for k, v in predictions[0].items() if k != "arch"}
    assert first["low_ms"] <= first["latency_ms"] <= first["high_ms"]
    assert 0 <= first["probability_within"] <= 1
    plot = tmp_path / "map.svg"
    text = run("neighbours", board, "--plot", plot)
    assert "device0" in text
    assert ">board</text>" in plot.read_text()


def test_validate_and_convert(table: Path, tmp_path: Path) -> None:
    assert "120 architectures" in run("validate", table)
    out = tmp_path / "part.csv"
    run("convert", table, out, "--devices", "device1")
    assert out.read_text().splitlines()[2] == "arch,device1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a,npu,3", ("a", "npu,3")), ("npu,3, b", ("npu,3", "b")), ("npu, 3", ("npu", "3")),
     ("x,y,z,a", ("x,y,z", "a")), (" a , b ", ("a", "b")), ("npu,a,", ("npu", "a")), ("", ())],
)  # fmt: skip
def test_columns_may_hold_commas(text: str, expected: tuple[str, ...]) -> None:
    assert names(text, ("a", "npu,3", "b", "x,y,z", "x,y")) == expected


def test_unknown_names_are_input_errors(table: Path) -> None:
    with pytest.raises(InputError, match="unknown search space"):
        run("validate", table, "--space", "nothing")
    with pytest.raises(InputError, match="unknown latency predictor"):
        arguments = "--test device0 --pool 60 --holdout 50 --method nothing"
        run("benchmark", table, *arguments.split())


def test_declared_macs_are_a_baseline_and_no_device(tmp_path: Path) -> None:
    made = synthetic_table(architectures=60, devices=2, positions=4)
    macs = made.column("device0") * 1e6
    path = tmp_path / "macs.csv"
    write_table(replace(made, costs={"macs": macs}), path)
    assert "macs" in run("validate", path)
    arguments = "--test device1 --pool 40 --holdout 20 --seeds 1 --measurements 8"
    text = run("benchmark", path, *arguments.split(), "--method", "macs,ridge")
    assert text.count("macs") == 2 and "device1" in text
    parquet = tmp_path / "macs.parquet"
    pytest.importorskip("pyarrow")
    run("convert", path, parquet)
    assert "macs" in run("validate", parquet)


def test_other_units_are_named_in_the_predictions(table: Path, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    measured = tmp_path / "energy.csv"
    rows = [",".join(line.split(",")[:2]) for line in lines[3:15]]
    measured.write_text("\n".join(["arch,energy_mj", *rows]) + "\n")
    known, board = tmp_path / "known.safetensors", tmp_path / "board.safetensors"
    run("fit", table, "-o", known, "--devices", "device1")
    run("adapt", known, measured, "-o", board)
    header = run("predict", board, table).splitlines()[0]
    assert header == "arch,energy_mj,std_mj,low_mj,high_mj"
    page = tmp_path / "map.html"
    pytest.importorskip("plotly")
    run("neighbours", board, "--plot", page)
    assert "energy_mj" in page.read_text()


def test_a_file_may_not_name_code_as_its_space(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("# space: os:getcwd\narch,board\na,1\n")
    with pytest.raises(InputError, match="--space os:getcwd"):
        run("validate", path)


def test_a_table_without_latencies_is_not_fitted_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("arch,energy_mj\na b,1\nb a,2\n")
    with pytest.raises(InputError, match="--devices"):
        run("fit", path, "-o", tmp_path / "known.safetensors", "--space", "tokens")


def test_fit_without_any_known_device(tmp_path: Path) -> None:
    """A table of architectures alone, and one measured column, are enough to predict."""
    archs = tmp_path / "archs.csv"
    made = synthetic_table(architectures=60, devices=1, positions=4)
    text = [made.space.text(arch) for arch in made.archs]
    archs.write_text("\n".join(["arch", *text]) + "\n")
    nothing, board = tmp_path / "nothing.safetensors", tmp_path / "board.safetensors"
    run("fit", archs, "-o", nothing, "--space", "tokens", "--devices", "none")
    measured = tmp_path / "measured.csv"
    rows = [f"{t},{v}" for t, v in zip(text[:10], made.column("device0"), strict=False)]
    measured.write_text("\n".join(["arch,board", *rows]) + "\n")
    run("adapt", nothing, measured, "-o", board)
    assert len(run("predict", board, archs).splitlines()) == 61
    with pytest.raises(InputError, match="no device column"):
        run("fit", archs, "-o", nothing, "--space", "tokens")


@pytest.mark.slow
def test_fit_keeps_validation_devices_apart(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "known.safetensors"
    text = run("fit", table, "-o", out, "--valid", "device3")
    assert "of 3 devices" in text
    with pytest.raises(InputError, match="--devices and --valid"):
        run("fit", table, "-o", out, "--devices", "device0,device3", "--valid", "device3")


def test_methods_may_be_several_and_cells_may_be_missing(tmp_path: Path) -> None:
    made = synthetic_table(architectures=150, devices=4, positions=4, missing=0.3)
    path, out = tmp_path / "table.csv", tmp_path / "out.json"
    write_table(made, path)
    arguments = "--meta-train device0,device1 --meta-valid device2 --test device3 --seeds 1"
    run(
        *["benchmark", path, *arguments.split(), "--pool", 100, "--holdout", 50],
        *["--measurements", 12, "--methods", "ridge,target_gp", "--json", out],
    )
    records = json.loads(out.read_text())
    assert [r["method"] for r in records] == ["ridge", "target_gp"]
    assert all(r["measurements"] == 12 for r in records)


def test_columns_of_large_errors_do_not_run_together(tmp_path: Path) -> None:
    made = synthetic_table(architectures=80, devices=2, positions=4)
    path = tmp_path / "bytes.csv"
    write_table(replace(made, values=1e9 * made.values), path)
    text = run(
        *["benchmark", path, "--test", "device1", "--pool", 50, "--holdout", 30],
        *["--seeds", 1, "--method", "ridge"],
    )
    header, row, _ = text.splitlines()
    assert len(row.split()) == len(header.split())


def test_negative_budgets_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"budget -1\.0"):
        run("predict", tmp_path / "none", tmp_path / "none.csv", "--budget=-1")


def test_tables_that_write_minus_one_for_missing_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arch,d\na b,-1\nb a,2.5\nb b,3\n")
    with pytest.raises(InputError, match="--missing=-1"):
        run("validate", path, "--space", "tokens")
    assert "2 measured" in run("validate", path, "--space", "tokens", "--missing=-1")


@pytest.mark.slow
def test_fit_says_what_it_leaves_out_and_how_much_it_uses(tmp_path: Path) -> None:
    made = synthetic_table(architectures=1200, devices=2, positions=4)
    values = made.values.copy()
    values[:, 1] = 4.0
    values[700:, 0] = float("nan")
    path = tmp_path / "t.csv"
    write_table(replace(made, values=values), path)
    text = run("fit", path, "-o", tmp_path / "p.safetensors", "--devices", "device0,device1")
    assert "device1 is left out: every measurement is 4" in text
    assert "learned from" not in text  # all 700 measurements are used
    assert "of 1 devices" in text


def test_declared_costs_reach_predictions_of_other_architectures(tmp_path: Path) -> None:
    lines = [f"net{i},{(i * 37) % 101 + 1}" for i in range(90)]
    path = tmp_path / "t.csv"
    path.write_text("arch,macs\n" + "\n".join(lines[:40]) + "\n")
    everything = tmp_path / "all.csv"
    everything.write_text("arch,macs\n" + "\n".join(lines) + "\n")
    known, board = tmp_path / "p.safetensors", tmp_path / "b.safetensors"
    run("fit", everything, "-o", known, "--space", "tokens", "--devices", "none")
    macs = {line.split(",")[0]: float(line.split(",")[1]) for line in lines}
    chosen = run("suggest", known, path, "-n", 8).splitlines()
    measured = tmp_path / "m.csv"
    measured.write_text("arch,d\n" + "\n".join(f"{a},{2 + 0.1 * macs[a]}" for a in chosen) + "\n")
    run("adapt", known, measured, "-o", board)
    out = tmp_path / "out.csv"
    run("predict", board, everything, "-o", out)
    for row in csv.DictReader(out.open()):
        assert float(row["latency_ms"]) == pytest.approx(2 + 0.1 * macs[row["arch"]], rel=0.1)


def test_a_baseline_that_cannot_be_fitted_does_not_end_a_benchmark(tmp_path: Path) -> None:
    """The predictor's own figures were lost with it."""
    rows = [f"{a} {b},{1 + a + 2 * b}.5,{2 + 2 * a + b}.25" for a in range(4) for b in range(4)]
    path = tmp_path / "few.csv"
    path.write_text("\n".join(["arch,phone,board", *rows]))
    done = runner.invoke(app, [
        "benchmark", str(path), "--space", "tokens", "--meta-train", "phone", "--test",
        "board", "--measurements", "3", "--pool", "4", "--holdout", "8", "--seeds", "1",
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "one_known_device is left out: " in done.stderr
    assert "transfer_gp" in done.stdout and "trees" in done.stdout


@pytest.mark.parametrize(("count", "words"), [(1, "the one measurement is 5"), (3, "all 3 mea")])
def test_measurements_that_tell_nothing_apart_are_told(
    table: Path, tmp_path: Path, count: int, words: str
) -> None:
    """Every architecture is predicted alike, whatever the known devices say."""
    prior, measured = tmp_path / "prior.safetensors", tmp_path / "measured.csv"
    run("fit", table, "--devices", "device0,device1", "--output", prior)
    with open(table, encoding="utf-8") as file:
        rows = [row[0] for row in csv.reader(line for line in file if line[0] != "#")][1:]
    text = "".join(f"{arch},5\n" for arch in rows[:count])
    measured.write_text("arch,board\n" + text)
    done = runner.invoke(
        app, ["adapt", str(prior), str(measured), "-o", str(tmp_path / "a.safetensors")]
    )
    assert done.exit_code == 0 and words in done.stderr


def test_architectures_of_another_preset_are_told_how_to_be_read(tmp_path: Path) -> None:
    space = build_space("signal", preset="32-lean", input_channels=1, outputs=2)
    path = tmp_path / "t.csv"
    path.write_text(f"# space: signal\narch,board\n{space.smallest()},1.5\n")
    with pytest.raises(InputError, match=r"with --preset \(32, .*and any of them with --space tok"):
        run("validate", path)
    assert "1 architectures of signal" in run("validate", path, "--preset", "32-lean")
    assert "1 architectures of tokens" in run("validate", path, "--space", "tokens")
