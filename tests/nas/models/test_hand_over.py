"""``nas export``: the right model, whole, with its card, or a clear error."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nas.models.card import ModelCard
from nas.models.hand_over import export_model
from search_spaces.errors import InputError


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "models").mkdir(parents=True)
    front = []
    for name in ("a1b2", "c3d4"):
        (folder / "models" / f"{name}.onnx").write_bytes(name.encode() * 100)
        front.append({"id": name, "model": f"models/{name}.onnx", "knee": name == "c3d4"})
    write(folder, front)
    return folder


def write(folder, front, **more) -> None:
    (folder / "results.json").write_text(json.dumps({"name": "job", "front": front, **more}))


def test_knee_is_the_default_and_lands_in_the_run(run):
    target = export_model(run)
    assert target == run / "export" / "c3d4" / "c3d4.onnx"
    assert target.read_bytes() == b"c3d4" * 100
    card = ModelCard.from_json(json.loads((target.parent / "c3d4.json").read_text()))
    assert card.id == "c3d4"
    assert (target.parent / "c3d4.md").read_text().startswith("# c3d4")


def test_by_id_to_a_folder_and_again(run, tmp_path):
    for _ in range(2):
        target = export_model(run, "a1b2", tmp_path / "out")
    assert sorted(p.name for p in target.parent.iterdir()) == ["a1b2.json", "a1b2.md", "a1b2.onnx"]


def test_unknown_id_names_the_nearest(run):
    with pytest.raises(InputError, match=r"no model 'a1b3'.*did you mean 'a1b2'.*c3d4"):
        export_model(run, "a1b3")


def test_rejected_candidates_say_why(run):
    results = json.loads((run / "results.json").read_text())
    write(run, results["front"], rejected=[{"id": "e5", "why": "over budget"}])
    with pytest.raises(InputError, match="'e5' was verified and rejected: over budget"):
        export_model(run, "e5")


@pytest.mark.parametrize(
    ("front", "message"),
    [
        ([], "empty front"),
        ([{"id": "a1b2", "model": "models/a1b2.onnx"}], "records no knee; pick an id: a1b2"),
        ([{"id": "a1b2", "knee": True}], "no model file"),
        ([{"id": "a1b2", "knee": True, "model": "models/zz.onnx"}], "zz.onnx is missing"),
        ([{"id": "a1b2", "knee": True, "model": "../secret"}], "lies outside"),
    ],
)
def test_runs_without_the_model(run, front, message):
    (run.parent / "secret").write_bytes(b"x")
    write(run, front)
    with pytest.raises(InputError, match=message):
        export_model(run)


def test_unfinished_run(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="nas resume"):
        export_model(tmp_path)


def test_damaged_model_is_refused(run):
    (run / "models" / "c3d4.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(InputError, match="changed or damaged"):
        export_model(run)
    assert not (run / "export").exists()


def test_output_that_is_a_file(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        export_model(run, "knee", tmp_path / "file")


OUTSIDE = [
    "../../out",
    "/tmp/out",
    "..",
    ".hidden",
    "a/b",
    "a\\b",
    "x\n",
    "",
    "-o",
    "a\0b",
    "n" * 200,
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_id_from_elsewhere_names_nothing_outside_its_folder(run, name):
    write(run, [{"id": name, "model": "models/a1b2.onnx", "knee": True}])
    before = sorted(run.rglob("*"))
    with pytest.raises(InputError, match=r"has the id|has no 'id'"):
        export_model(run)
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_card_is_written_into_its_folder_or_not_at_all(run, tmp_path, name):
    folder = tmp_path / "cards"
    card = ModelCard.from_results({}, {"id": "a"}, run / "models" / "a1b2.onnx")
    with pytest.raises(InputError, match="no name of a file"):
        replace(card, id=name).write(folder)
    assert not folder.exists()
