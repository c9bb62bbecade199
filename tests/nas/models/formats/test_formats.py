"""The contract of every export format, and what ``nas export --format`` makes of a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

from nas.models.export_formats import export_formats
from nas.models.formats.base import FORMATS, Source
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError

LABELS = tuple("abcde")
PREPROCESSING = {"pixel_scale": 1 / 255, "mean": [0.5], "std": [0.25]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A quantised network of the mobilenet space with random weights."""
    torch = pytest.importorskip("torch")
    from search_spaces.bits import set_bits
    from search_spaces.spaces.registry import build_space
    from supernet.network import Supernet
    from supernet.onnx.export import export_onnx

    torch.manual_seed(0)
    space = build_space("mobilenet", input_channels=1, outputs=5, preset="8x8")
    made = Supernet(space)
    genes = space.genes([space.smallest()])
    plan = space.plan(space.decode(set_bits(space, genes, 4, 8))[0])
    images = torch.randn(16, *plan.input_shape, generator=torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp("model") / "m0.onnx"
    with torch.no_grad():
        network = made.extract(plan, made.statistics(plan, [images])).eval()
    # Kernels for processors without dot products of bytes sum pairs of products in 16 bits.
    export_onnx(network, path, reduce_range=True)
    return path, plan


def source(model, **changes) -> Source:
    path, plan = model
    costs = {"peak_memory_kib": plan.peak_memory_kib, "flash_kib": plan.flash_kib}
    values = {"labels": LABELS, "costs": costs, "preprocessing": PREPROCESSING, **changes}
    return Source(path, "m0", **values)


def available(name):
    try:
        FORMATS.get(name).require()
    except MissingExtraError as error:
        pytest.skip(f"{error}")
    return FORMATS.get(name)


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_format_writes_what_it_says_and_knows_how_right_it_is(name, model, tmp_path):
    written = available(name).write(source(model), tmp_path)
    assert written.format == name and written.files
    for file in written.files:
        assert (tmp_path / file).is_file()
        assert file.startswith("m0")
    assert {p.name.split(".")[0].split("-")[0] for p in tmp_path.iterdir()} == {"m0"}
    if written.relative_error is None:
        assert written.note
    else:
        # Steps are twice as wide for TensorRT.
        assert 0 <= written.relative_error < (0.3 if name == "tensorrt" else 0.05)
    assert json.loads(json.dumps(written.to_json()))["files"] == list(written.files)


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_missing_package_is_named_with_its_extra(name, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(module, *rest, **options):
        if module.split(".")[0] in (
            "onnx", "openvino", "ai_edge_litert", "ncnn", "MNN", "executorch",
        ):  # fmt: skip
            raise ImportError(module)
        return real(module, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"edge-nas\[\w+\]"):
        FORMATS.get(name).require()


def test_the_c_project_keeps_the_promises_of_the_search(model, tmp_path):
    plan = model[1]
    FORMATS.get("c").write(source(model), tmp_path)
    project = json.loads((tmp_path / "m0-c" / "project.json").read_text())
    assert project["arena_bytes"] == project["peak_bytes"] == plan.peak_memory_kib * 1024
    constants = project["weight_bytes"] + project["channel_bytes"]
    assert constants == pytest.approx(plan.flash_kib * 1024, rel=0.02)
    assert (tmp_path / "m0-c" / "labels.txt").read_text().split() == list(LABELS)


def test_what_has_no_c_project_is_told_by_what_it_is(model, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise InputError("reshape (r): the C kernels flatten images only")

    monkeypatch.setattr("nas.models.formats.c.write_c_project", refuse)
    given = source(model)
    with pytest.raises(InputError, match=r"no C kernels for detectors.*lowbit or litert \(reshape"):
        FORMATS.get("c").write(replace(given, targets="boxes"), tmp_path)
    with pytest.raises(InputError, match=r"^reshape \(r\)"):
        FORMATS.get("c").write(given, tmp_path)


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS.get(name).embeds])
def test_pixels_go_in_and_give_what_prepared_inputs_give(name, model, tmp_path):
    written = available(name).write(source(model, embed=True), tmp_path)
    assert written.files[0].startswith("m0-uint8") and written.relative_error < 0.05
    assert written.note


def test_tensorrt_gets_signed_codes_without_zero_points(model, tmp_path):
    written = FORMATS.get("tensorrt").write(source(model), tmp_path)
    made = onnx.load(tmp_path / written.files[0])
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8 and not zero.any()
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            assert constants[node.input[0]].dtype == np.int8
    assert "not in TensorRT" in written.note


def test_a_litert_file_says_what_it_is(model, tmp_path):
    written = available("litert").write(source(model), tmp_path)
    from devices.runtimes.tflite.metadata import add_metadata, read_metadata

    data = (tmp_path / written.files[0]).read_bytes()
    notes = {name: json.loads(text) for name, text in read_metadata(data).items()}
    assert notes["labels"] == list(LABELS) and notes["preprocessing"] == PREPROCESSING
    again = read_metadata(add_metadata(data, {"id": "other"}))
    assert again["id"] == "other" and len(again) == len(notes)


def test_a_c_project_takes_pixels_by_a_table_and_refuses_sounds(model, tmp_path):
    FORMATS.get("c").write(source(model, embed=True), tmp_path)
    header = (tmp_path / "m0-uint8-c" / "model.h").read_text()
    assert header.count("#endif") == 1 and "void edge_nas_set_pixels(const uint8_t" in header
    assert "edge_nas_set_pixels()" in (tmp_path / "m0-uint8-c" / "README.md").read_text()
    as_they_are = {**PREPROCESSING, "pixel_scale": 1}
    with pytest.raises(InputError, match="pre-processing of pixels alone"):
        FORMATS.get("c").write(source(model, embed=True, preprocessing=as_they_are), tmp_path)


def test_metadata_is_in_the_onnx_file(model, tmp_path):
    written = FORMATS.get("onnx").write(source(model, embed=True), tmp_path)
    made = onnx.load(tmp_path / written.files[0])
    notes = {entry.key: entry.value for entry in made.metadata_props}
    assert json.loads(notes["labels"]) == list(LABELS)
    assert json.loads(notes["preprocessing"]) == PREPROCESSING
    assert made.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert written.relative_error < 1e-4


@pytest.fixture
def run(model, tmp_path):
    path, plan = model
    folder = tmp_path / "run"
    (folder / "models").mkdir(parents=True)
    shutil.copy(path, folder / "models" / "m0.onnx")
    entry = {
        "id": "m0", "model": "models/m0.onnx", "knee": True, "per_class": {"0": 1.0},
        "costs": {"peak_memory_kib": plan.peak_memory_kib, "flash_kib": plan.flash_kib},
        "plan": {"outputs": 5, "input_shape": [1, 8, 8], "blocks": []},
    }  # fmt: skip
    splits = {"classes": list(LABELS), **PREPROCESSING}
    results = {"name": "job", "front": [entry], "provenance": {"splits": splits}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_run_is_exported_with_labels_and_a_record(run):
    written = export_formats(run, formats=["onnx", "lowbit", "c"])
    folder = run / "export" / "m0"
    assert [w.format for w in written] == ["onnx", "lowbit", "c"]
    assert (folder / "m0.onnx").read_bytes() == (run / "models" / "m0.onnx").read_bytes()
    record = json.loads((folder / "formats.json").read_text())
    assert [entry["format"] for entry in record["formats"]] == ["onnx", "lowbit", "c"]
    assert (folder / "m0-labels.txt").read_text().split() == list(LABELS)
    assert (folder / "m0.md").is_file()
    told = (folder / "m0-c" / "README.md").read_text()
    assert "subtract the mean" in told and "one value a class before softmax" in told


def test_one_format_that_fails_does_not_take_the_others_with_it(run, monkeypatch):
    def fail(source, folder):
        raise InputError("no kernel for it")

    monkeypatch.setattr(FORMATS.get("c"), "write", fail)
    with pytest.raises(InputError, match="no kernel"):
        export_formats(run, formats=["c", "lowbit"])
    seen = []
    written = export_formats(
        run, formats=["c", "lowbit"], failed=lambda name, error: seen.append(name)
    )
    assert seen == ["c"] and [w.format for w in written] == ["lowbit"]
    record = json.loads((run / "export" / "m0" / "formats.json").read_text())
    assert record["failed"] == {"c": "no kernel for it"}


def test_wrong_formats_are_refused_before_anything_is_written(run):
    for formats, message in (
        (["onxx"], "unknown export format 'onxx'; did you mean 'onnx'"),
        (["c", "c"], "give each once"),
        ([], "formats are none"),
    ):
        with pytest.raises(InputError, match=message):
            export_formats(run, formats=formats)
    with pytest.raises(InputError, match=r"'lowbit' cannot hold the pre-processing.*, onnx"):
        export_formats(run, formats=["lowbit"], embed_preprocessing=True)
    assert not (run / "export").exists()


def test_a_packed_model_that_computes_something_else_is_refused(model, tmp_path, monkeypatch):
    import nas.models.c_project.project as project

    try:
        monkeypatch.setattr(
            project, "runtime_outputs", lambda model, images: np.full((len(images), 5), 7.0)
        )
        with pytest.raises(InputError, match="the packing is wrong"):
            FORMATS.get("lowbit").write(source(model), tmp_path)
    except EnvironmentProblem as error:
        pytest.skip(str(error))
