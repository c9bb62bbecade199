"""The C project computes what the low-bit runtime computes, bit for bit."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from nas.models.c_project.lowering import lower
from nas.models.c_project.project import runtime_outputs, write_c_project
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import PackedModel

CROSS = {
    "cortex-m4": ("arm-none-eabi-gcc", "qemu-system-arm"),
    "cortex-m7": ("arm-none-eabi-gcc", "qemu-system-arm"),
    "rv32imc": ("riscv64-unknown-elf-gcc", "qemu-system-riscv32"),
}


# The outputs that a project is compared with come from the low-bit runtime.
pytestmark = pytest.mark.usefixtures("needs_compiler")


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8])
def test_every_operation_is_exact_and_clean_under_sanitizers(
    network, make, c_compiler, tmp_path, bits
):
    write_c_project(network(bits, bits), tmp_path)
    done = make(tmp_path, "-s", "sanitize", f"CC={c_compiler}")
    assert done.returncode == 0, done.stdout
    assert "PASS 3 of 3" in done.stdout


def test_weights_in_whole_fields_give_the_same(network, make, c_compiler, tmp_path):
    model = network(3, 3)
    packed = write_c_project(model, tmp_path / "packed")
    fields = write_c_project(model, tmp_path / "fields", storage="fields")
    assert packed.weight_bytes < fields.weight_bytes
    done = make(tmp_path / "fields", "-s", "run", f"CC={c_compiler}")
    assert done.returncode == 0, done.stdout


def test_a_signal_is_an_image_of_height_one(builder, make, c_compiler, tmp_path):
    def made(signal: bool) -> PackedModel:
        kernel, sides = ((5,), (40,)) if signal else ((1, 5), (1, 40))
        b = builder(np.random.default_rng(5), (4, *sides), 4)
        pads = (2, 2) if signal else (0, 2, 0, 2)
        b.conv("q", "a", 12, kernel, pads=pads, strides=(2,) if signal else (1, 2))
        b.node("global_average_pool", ["a"], "m")
        b.grid("m", 8, 0.05, 3)
        b.node("flatten", ["m"], "flat", axis=1)
        b.like("flat", "m")
        b.node("linear", ["flat"], "y", layer="y", weights=b.weights("y", (3, 12)))
        return b.model("y")

    images = np.random.default_rng(1).standard_normal((3, 4, 1, 40)).astype(np.float32)
    outputs = runtime_outputs(made(False), images)
    write_c_project(made(True), tmp_path, images=images[:, :, 0], expected=outputs)
    done = make(tmp_path, "-s", "run", f"CC={c_compiler}")
    assert done.returncode == 0, done.stdout


def test_a_wrong_output_is_noticed(network, make, c_compiler, tmp_path):
    model = network(0, 4)
    images = np.random.default_rng(0).standard_normal((1, 3, 11, 9)).astype(np.float32)
    outputs = runtime_outputs(model, images)
    outputs[0, 0] = np.nextafter(outputs[0, 0], np.float32(np.inf))
    write_c_project(model, tmp_path, images=images, expected=outputs)
    done = make(tmp_path, "-s", "run", f"CC={c_compiler}")
    assert done.returncode != 0 and "DIFFERENT" in done.stdout


def test_the_report_counts_what_is_written(network, tmp_path):
    model = network(1, 3)
    report = write_c_project(
        model, tmp_path, labels=[f"class {i}" for i in range(7)],
        promised={"peak_memory_kib": 2.0, "flash_kib": 3.0},
    )  # fmt: skip
    codes = sum(t.nbytes for n, t in model.tensors.items() if n.endswith(".codes"))
    # An average is a layer of ones, 2 x 2 of two bits each: a byte a channel.
    ones = sum(n["op"] == "average_pool" for n in model.nodes())
    channels = model.tensors["stem.scale"].size
    assert report.weight_bytes == codes + ones * channels
    assert report.arena_bytes >= report.peak_bytes == lower(model).peak_bytes
    recorded = json.loads((tmp_path / "project.json").read_text())
    assert recorded["arena_bytes"] == report.arena_bytes and recorded["promised_flash_kib"] == 3
    assert len((tmp_path / "labels.txt").read_text().splitlines()) == 7
    assert (
        f"#define EDGE_NAS_ARENA_BYTES {report.arena_bytes}\n" in (tmp_path / "model.h").read_text()
    )


def test_labels_must_fit_and_storage_must_be_known(network, tmp_path):
    with pytest.raises(InputError, match="2 labels for 7 outputs"):
        write_c_project(network(0, 4), tmp_path, labels=["a", "b"])
    with pytest.raises(InputError, match="storage='wide' must be one of packed, fields"):
        write_c_project(network(0, 4), tmp_path, storage="wide")


def test_names_cannot_leave_a_comment(network, make, c_compiler, tmp_path):
    model = network(0, 4)
    for node in model.nodes():
        if node.get("layer") == "stem":
            node["layer"] = "stem */ #error \\\n"
    write_c_project(model, tmp_path, name="*/ #error")
    assert make(tmp_path, "-s", "run", f"CC={c_compiler}").returncode == 0


def test_what_needs_floats_is_named(builder, tmp_path):
    b = builder(np.random.default_rng(0), (3, 4, 4), 8)
    b.node("dequantize", ["q"], "x")
    b.node("Softmax", ["x"], "y")
    with pytest.raises(InputError, match=r"Softmax \(y\) needs floating point"):
        lower(b.model("y"))
    wide = builder(np.random.default_rng(0), (3, 4, 4), 8)
    wide.conv("q", "a", 4, (1, 1), bits=8)
    wide.grids["a"]["bits"] = 16
    with pytest.raises(InputError, match="a has codes of 16 bits"):
        lower(wide.model("a"))


def test_cmake_builds_it(network, tmp_path):
    if not shutil.which("cmake"):
        pytest.skip("no cmake")
    write_c_project(network(0, 2), tmp_path)
    for command in (
        ["cmake", "-B", "build", "-S", "."],
        ["cmake", "--build", "build"],
        ["build/example"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", CROSS)
def test_microcontrollers_compute_the_same(network, make, tmp_path, target):
    missing = [tool for tool in CROSS[target] if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed; see docs/export-formats.md")
    write_c_project(network(3, 3), tmp_path)
    done = make(tmp_path, "-s", "run", f"TARGET={target}")
    assert done.returncode == 0, done.stdout
    assert "PASS 3 of 3" in done.stdout


def test_the_readme_says_what_outputs_mean(network, tmp_path):
    write_c_project(network(4, 4), tmp_path / "classes")
    told = (tmp_path / "classes" / "README.md").read_text()
    assert "`edge_nas_class()` is the index of the largest" in told and "What goes in" not in told
    write_c_project(
        network(4, 4), tmp_path / "values", one_class=False, meaning="height = 2 * output[0]."
    )
    told = (tmp_path / "values" / "README.md").read_text()
    assert "`edge_nas_probabilities()` mean nothing of this model" in told
    assert "## What goes in and comes out\n\nheight = 2 * output[0].\n" in told
