import csv
import subprocess
import sys

from nas.report.front import COLUMNS, front_rows, write_front_csv


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_for_each_architecture_and_device(results, tmp_path):
    write_front_csv(results, tmp_path / "front.csv")
    rows = read(tmp_path / "front.csv")
    assert tuple(rows[0]) == COLUMNS
    expected = [(e["id"], d) for e in results["front"] for d in e["devices"]]
    assert [(r["id"], r["device"]) for r in rows] == expected
    entry, row = results["front"][0], rows[0]
    measured = entry["devices"]["cpu"]
    assert float(row["accuracy"]) == entry["test_accuracy"]
    assert float(row["latency_ms"]) == measured["latency_ms"]
    assert float(row["latency_low_ms"]) == measured["low_ms"]
    assert float(row["latency_high_ms"]) == measured["high_ms"]
    assert row["runtime"] == "onnxruntime"
    assert row["latency_source"] == "measured"
    assert row["macs"] == str(int(entry["costs"]["macs"]))
    assert sum(r["knee"] == "true" for r in rows) == len(entry["devices"])


def test_feasible_is_told_per_device_and_over_all(results, tmp_path):
    results["front"][0]["devices"]["board"]["feasible"] = False
    results["front"][0]["feasible"] = False
    results["front"][1]["devices"]["board"]["valid"] = False
    write_front_csv(results, tmp_path / "front.csv")
    rows = read(tmp_path / "front.csv")
    assert [r["feasible"] for r in rows[:2]] == ["true", "false"]
    assert [r["feasible_all"] for r in rows[:2]] == ["false", "false"]
    assert rows[3]["latency_valid"] == "false"


def test_what_is_not_recorded_is_empty(tmp_path):
    results = {"front": [{"id": "a", "arch": "x=1", "devices": {"cpu": {}}}]}
    write_front_csv(results, tmp_path / "front.csv")
    (row,) = read(tmp_path / "front.csv")
    assert row["latency_ms"] == row["latency_source"] == row["feasible"] == row["macs"] == ""


def test_an_empty_front_still_has_its_header(tmp_path):
    write_front_csv({"front": []}, tmp_path / "front.csv")
    assert (tmp_path / "front.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_rows_keep_awkward_text_whole(tmp_path):
    results = {"front": [{"id": 'a,"b"\n', "arch": "x", "devices": {"cpu": {}}}]}
    assert front_rows(results)[0]["id"] == 'a,"b"\n'
    write_front_csv(results, tmp_path / "front.csv")
    assert read(tmp_path / "front.csv")[0]["id"] == 'a,"b"\n'


def test_the_writer_needs_no_heavy_package():
    code = (
        "import sys, nas.report.front; "
        "print([m for m in ('torch', 'pandas', 'scipy', 'moocore') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_objective_has_a_column(results):
    results["front"][0]["per_class"] = {"a": 0.9, "b": 0.4, "c": None}
    results["front"][0]["costs"] |= {"peak_memory_kib": 3.5, "flash_kib": 7.25}
    results["front"][0]["devices"]["cpu"]["energy_mj"] = 0.125
    row = front_rows(results)[0]
    assert row["worst_class_accuracy"] == 0.4
    assert (row["peak_memory_kib"], row["flash_kib"], row["energy_mj"]) == (3.5, 7.25, 0.125)
