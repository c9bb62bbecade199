import math
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from devices.measuring.measurement import Measurement, Rejected
from devices.measuring.store import MeasurementStore, Query, measurement_key
from search_spaces.errors import EnvironmentProblem, InputError

PROTOCOL = {"processes": 3, "runs": 4}


def measurement(latency=1.0, **changes):
    whole = Measurement(
        latency_ms=latency,
        low_ms=0.9 * latency,
        high_ms=1.1 * latency,
        iqr_ms=0.1,
        p90_ms=1.2,
        p99_ms=1.3,
        mad_ms=0.05,
        samples_ms=((1.0, 1.1, 0.1 + 0.2, latency), (1.0, 1.0, 1.0, 1.0)),
        calls=(1, 2),
        valid=True,
        reasons=(),
        attempts=2,
        rejected=(Rejected(("background-load",), ((7.0, 8.0), (9.0,))),),
        runtime="r",
        runtime_version="1.0",
        parameters={"threads": 1},
        protocol=PROTOCOL,
        conditions={"kernel": "6.1", "before": [{"load_1m": 0.5}]},
        pinned=False,
    )
    return replace(whole, **changes)


@pytest.fixture
def query(tmp_path):
    def make(content="model", *, version="1.0", fingerprint="board", **changes):
        path = tmp_path / "model.onnx"
        path.write_text(content)
        identity = {
            "runtime": {"name": "r", "version": version, "parameters": {"threads": 1}},
            "fingerprint": {"cpu": fingerprint},
        }
        fields = {
            "model": path,
            "device": "board",
            "runtime": "r",
            "spec_parameters": {"threads": 1, "batch": 1},
            "protocol": PROTOCOL,
            "identify": lambda: identity,
            "arch": "d2:k3",
            "space": "mobilenet",
        }
        made = Query(**{**fields, **changes})
        _ = made.key  # the file changes with the next query
        return made

    return make


@pytest.fixture
def store(tmp_path):
    return MeasurementStore(tmp_path / "folder" / "store.sqlite")


def test_what_was_put_is_found_with_every_raw_sample(store, query):
    assert store.find(query()) is None
    store.put(query(), measurement())
    again = MeasurementStore(store.path)
    assert again.find(query()) == measurement()
    assert again.get(query().key) == measurement()


def test_figures_that_do_not_exist_survive(store, query):
    failed = measurement(math.nan, samples_ms=(), calls=(), valid=False, reasons=("model-failed",))
    store.put(query(), failed)
    found = store.find(query())
    assert math.isnan(found.latency_ms) and found.to_json() == failed.to_json()


def test_anything_that_changes_a_latency_changes_the_key(query):
    keys = [
        query().key,
        query("another model").key,
        query(version="1.1").key,
        query(fingerprint="another board").key,
        query(protocol={**PROTOCOL, "runs": 5}).key,
    ]
    assert len(set(keys)) == len(keys)
    assert query(arch="renamed", device="renamed").key == keys[0]


def test_the_key_does_not_depend_on_the_order_of_parameters():
    one = measurement_key("m", {"a": 1, "b": {"c": 2, "d": 3}}, {}, {})
    assert one == measurement_key("m", {"b": {"d": 3, "c": 2}, "a": 1}, {}, {})


def test_the_newest_of_one_key_counts_and_the_older_is_kept(store, query):
    store.put(query(), measurement(1.0, valid=False, reasons=("background-load",)))
    store.put(query(), measurement(2.0))
    assert store.find(query()).latency_ms == 2.0
    assert [row["valid"] for row in store.rows()] == [False, True]


def test_a_hit_under_other_names_can_be_replayed_under_both(store, query):
    store.put(query(), measurement(device="board"))
    renamed = {"variant": "verify", "device": "desk"}
    assert store.find(query(**renamed)) == measurement(device="desk")
    replayed = MeasurementStore.replay(store.path)
    assert replayed.find(query()) == measurement(device="board")
    assert replayed.find(query(**renamed)) == measurement(device="desk")
    store.find(query())
    store.find(query(**renamed))
    assert len(store.rows()) == 2


def test_rows_describe_each_measurement(store, query):
    store.put(query(variant="verify"), measurement())
    (row,) = store.rows()
    assert row["arch"] == "d2:k3" and row["space"] == "mobilenet" and row["variant"] == "verify"
    assert row["fingerprint"] == {"cpu": "board"} and row["protocol"] == PROTOCOL
    assert row["model_sha256"] == query().model_sha256


def test_replay_needs_neither_file_nor_hardware(store, query, tmp_path):
    store.put(query(), measurement(1.0))
    store.put(query("after fine-tuning", variant="verify"), measurement(2.0))

    def unknown():
        raise AssertionError("a replay does not look at the hardware")

    blind = {"model": tmp_path / "absent", "identify": unknown}
    asked = {**vars(query()), **blind}
    asked = {name: asked[name] for name in Query.__dataclass_fields__}
    replayed = MeasurementStore.replay(store.path)
    assert replayed.find(Query(**asked)) == measurement(1.0)
    assert replayed.find(Query(**{**asked, "variant": "verify"})) == measurement(2.0)


@pytest.mark.parametrize(
    "change",
    [
        {"arch": "d4:k7"},
        {"space": "vit"},
        {"device": "other"},
        {"runtime": "other"},
        {"variant": "other"},
        {"spec_parameters": {"threads": 2, "batch": 1}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_replay_refuses_what_was_not_measured(store, query, change):
    store.put(query(), measurement())
    value = next(iter(change.values()))
    with pytest.raises(InputError, match="has no measurement of") as error:
        MeasurementStore.replay(store.path).find(query(**change))
    assert (str(value) if isinstance(value, str) else '"threads":2') in str(error.value)


def test_a_replay_says_which_variants_of_an_architecture_were_measured(store, query):
    store.put(query(variant="search"), measurement())
    replayed = MeasurementStore.replay(store.path)
    assert replayed.holds("mobilenet", "d2:k3", "search")
    assert not replayed.holds("mobilenet", "d2:k3", "verify")
    assert not replayed.holds("mobilenet", "d1:k3", "search")
    assert not replayed.holds("resnet", "d2:k3", "search")


def test_replay_takes_no_measurement(store, query):
    before = store.path.read_bytes()
    with pytest.raises(InputError, match="replayed"):
        MeasurementStore.replay(store.path).put(query(), measurement())
    assert store.path.read_bytes() == before


def test_replay_of_a_copy_in_a_read_only_folder(store, query, tmp_path):
    store.put(query(), measurement())
    folder = tmp_path / "copy"
    folder.mkdir()
    shutil.copy(store.path, folder / "s.sqlite")
    (folder / "s.sqlite").chmod(0o444)
    folder.chmod(0o555)
    try:
        assert MeasurementStore.replay(folder / "s.sqlite").find(query()) == measurement()
    finally:
        folder.chmod(0o755)


def test_replay_of_nothing(tmp_path):
    with pytest.raises(InputError, match=r"absent\.sqlite"):
        MeasurementStore.replay(tmp_path / "absent.sqlite")
    assert not (tmp_path / "absent.sqlite").exists()


@pytest.mark.parametrize("opening", [MeasurementStore, MeasurementStore.replay])
def test_a_file_of_another_kind_is_left_alone(tmp_path, opening):
    text, database = tmp_path / "a.csv", tmp_path / "b.sqlite"
    text.write_text("arch,board\n" * 100)
    with sqlite3.connect(database) as db:
        db.execute("CREATE TABLE other (x)")
    for path in (text, database):
        before = path.read_bytes()
        with pytest.raises(InputError, match=path.name):
            opening(path)
        assert path.read_bytes() == before


def test_a_store_of_a_later_version_is_refused(store):
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="upgrade"):
        MeasurementStore(store.path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot make the folder"):
        MeasurementStore(tmp_path / "file" / "store.sqlite")


def test_a_full_disk_leaves_no_half_measurement(tmp_path, query):
    room = None

    def connect(*args, **options):
        db = sqlite3.connect(*args, **options)
        if room is not None:
            db.execute(f"PRAGMA max_page_count = {room}")
        return db

    store = MeasurementStore(tmp_path / "s.sqlite", connect=connect)
    store.put(query(), measurement())
    with sqlite3.connect(store.path) as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
    # Enough for the row itself, not for its samples.
    room = pages + 2
    big = measurement(2.0, samples_ms=((1.0,) * 4000,) * 5)
    with pytest.raises(EnvironmentProblem, match="no space left"):
        store.put(query("second"), big)
    room = None
    assert len(store.rows()) == 1 and store.find(query("second")) is None
    with sqlite3.connect(store.path) as db:
        assert db.execute("SELECT count(DISTINCT measurement) FROM samples").fetchone() == (1,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.put(query("second"), big)
    assert store.find(query("second")) == big


WRITER = """
import sys
from pathlib import Path
from devices.measuring.measurement import Measurement
from devices.measuring.store import MeasurementStore, Query
path, name = Path(sys.argv[1]), sys.argv[2]
identity = {"runtime": {"name": "r"}, "fingerprint": {"cpu": name}}
figures = dict.fromkeys("latency_ms low_ms high_ms iqr_ms p90_ms p99_ms mad_ms".split(), 1.0)
whole = Measurement(**figures, samples_ms=((1.0,) * 30,) * 3, calls=(1, 1, 1), valid=True,
    reasons=(), attempts=1, rejected=(), runtime="r", runtime_version="1", parameters={},
    protocol={}, conditions={}, pinned=False)
store = MeasurementStore(path)
for i in range(int(sys.argv[3])):
    query = Query(Path(sys.argv[4]), "d", "r", {}, {}, lambda: identity,
        arch=f"{name}-{i}")
    store.put(query, whole)
    print(i, flush=True)
"""


def writer(path, name, count, model):
    command = [sys.executable, "-c", WRITER, str(path), name, str(count), str(model)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_write_one_new_store_at_once(tmp_path):
    model = tmp_path / "model"
    model.write_text("m")
    writers = [writer(tmp_path / "s.sqlite", f"w{i}", 20, model) for i in range(4)]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    rows = MeasurementStore(tmp_path / "s.sqlite").rows()
    assert sorted(row["arch"] for row in rows) == sorted(
        f"w{i}-{k}" for i in range(4) for k in range(20)
    )


def test_a_killed_writer_leaves_whole_measurements(tmp_path):
    model = tmp_path / "model"
    model.write_text("m")
    process = writer(tmp_path / "s.sqlite", "w", 10_000, model)
    for _ in range(5):
        process.stdout.readline()
    process.kill()
    process.communicate()
    rows = MeasurementStore(tmp_path / "s.sqlite").rows()
    assert len(rows) >= 5
    with sqlite3.connect(tmp_path / "s.sqlite") as db:
        counts = db.execute("SELECT count(*) FROM samples GROUP BY measurement").fetchall()
    assert counts == [(3,)] * len(rows)
