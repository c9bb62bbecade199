import csv
import json

import pytest

from devices.measuring.measurement import Measurement, Rejected
from devices.measuring.store import MeasurementStore, Query
from devices.measuring.store_export import export_samples, export_table
from search_spaces.errors import InputError


@pytest.fixture
def store(tmp_path):
    return MeasurementStore(tmp_path / "store.db")


@pytest.fixture
def put(store, tmp_path):
    """Keep a measurement of an architecture on a device."""

    def add(arch, latency, *, device="board", valid=True, space="mobilenet", variant="search"):
        model = tmp_path / "model.onnx"
        model.write_text(f"{arch} {device} {space}")
        query = Query(
            model=model, device=device, runtime="r", spec_parameters={"threads": 1},
            protocol={"runs": 2},
            identify=lambda: {"runtime": {"name": "r"}, "fingerprint": {"cpu": device}},
            arch=arch, space=space, variant=variant,
        )  # fmt: skip
        store.put(query, measurement(latency, valid))

    return add


def measurement(latency, valid):
    return Measurement(
        latency_ms=latency, low_ms=latency, high_ms=latency, iqr_ms=0.1, p90_ms=1.2, p99_ms=1.3,
        mad_ms=0.05, samples_ms=((latency, 1.1), (1.0, 1.2)), calls=(1, 2), valid=valid,
        reasons=(), attempts=2, rejected=(Rejected(("background-load",), ((7.0, 8.0), (9.0,))),),
        runtime="r", runtime_version="1.0", parameters={"threads": 1}, protocol={"runs": 2},
        conditions={}, pinned=False,
    )  # fmt: skip


def lines(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [line for line in csv.reader(file) if not line[0].startswith("#")]


def test_a_table_has_one_row_an_architecture_and_one_column_a_device(store, put, tmp_path):
    put("a", 1.0, device="laptop")
    put("a", 3.0)
    put("b, with comma", 4.0)
    put("b, with comma", 9.0, device="laptop", valid=False)
    path = tmp_path / "t.csv"
    assert export_table(store, path) == 2
    assert lines(path) == [
        ["arch", "board", "laptop"],
        ["a", "3.0", "1.0"],
        ["b, with comma", "4.0", ""],
    ]
    assert path.read_text().startswith("# space: mobilenet\n# metric: latency_ms\n")
    export_table(store, path, include_invalid=True)
    assert lines(path)[2] == ["b, with comma", "4.0", "9.0"]


def test_spaces_and_variants_are_kept_apart(store, put, tmp_path):
    put("a", 1.0, space="one")
    put("b", 2.0, space="two")
    put("b", 5.0, space="two", variant="verify")
    path = tmp_path / "t.csv"
    with pytest.raises(InputError, match="one, two"):
        export_table(store, path)
    export_table(store, path, space="two", variant="search")
    assert lines(path) == [["arch", "board"], ["b", "2.0"]]
    with pytest.raises(InputError, match="no valid measurement"):
        export_table(store, path, space="three")


def test_a_table_of_a_space_is_read_back_from_both_formats(store, put, tmp_path):
    pytest.importorskip("pyarrow")
    from search_spaces.spaces.mobilenet import MobileNetSpace
    from search_spaces.tables.table import declared_space, read_table

    space = MobileNetSpace.from_config(preset="8x8")
    put(str(space.smallest()), 1.0)
    put(str(space.largest()), 2.0)
    for name in ("t.csv", "t.parquet"):
        path = tmp_path / name
        export_table(store, path)
        table = read_table(path, space)
        assert declared_space(path) == "mobilenet"
        assert table.archs == [space.smallest(), space.largest()]
        assert table.column("board").tolist() == [1.0, 2.0]


def test_every_raw_sample_is_in_the_parquet(store, put, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    put("a", 1.0)
    put("b", 2.0, valid=False)
    path = tmp_path / "s.parquet"
    assert export_samples(store, path) == 2
    rows = parquet.read_table(path).to_pylist()
    assert [row["arch"] for row in rows] == ["a", "b"]
    kept, rejected = rows[0]["samples_ms"]
    assert kept == [[1.0, 1.1], [1.0, 1.2]] and rejected == [[7.0, 8.0], [9.0]]
    assert json.loads(rows[0]["fingerprint"]) == {"cpu": "board"}
    assert export_samples(store, path, include_invalid=False) == 1
    with pytest.raises(InputError, match=r"suffix \.parquet"):
        export_samples(store, tmp_path / "s.csv")
    with pytest.raises(InputError, match="no measurement"):
        export_samples(store, path, space="other")
