"""C projects of models that jobs found, of pictures, signals and sounds, on every target.

The models and what the search promised of them are kept in ``fronts``, written by
``experiments.deliver.front_models``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nas.models.c_project.project import write_c_project
from search_spaces.model_files.packed_model import read_packed_model

FRONTS = Path(__file__).parent / "fronts"
MODELS = json.loads((FRONTS / "promises.json").read_text(encoding="utf-8"))["models"]
TARGETS = {
    "cortex-m4": ("arm-none-eabi-", "qemu-system-arm"),
    "cortex-m7": ("arm-none-eabi-", "qemu-system-arm"),
    "rv32imc": ("riscv64-unknown-elf-", "qemu-system-riscv32"),
}
SHARE = 0.02
"""By which an image may differ from what was promised."""

# The outputs that a project is compared with come from the low-bit runtime.
pytestmark = [pytest.mark.usefixtures("needs_compiler"), pytest.mark.long]


def project(name: str, folder: Path):
    """Write the project of a model as its promise counts it."""
    promised = {key: MODELS[name][key] for key in ("peak_memory_kib", "flash_kib")}
    model = read_packed_model(FRONTS / f"{name}.lowbit")
    return write_c_project(model, folder, storage="fields", promised=promised)


def test_there_is_one_of_each_kind():
    assert set(MODELS) == {"vision", "signal", "audio"}


@pytest.mark.parametrize("name", MODELS)
def test_a_front_s_model_is_exact_and_clean_on_this_machine(name, make, c_compiler, tmp_path):
    report = project(name, tmp_path)
    assert report.arena_bytes == report.peak_bytes == 1024 * MODELS[name]["peak_memory_kib"]
    constants = report.weight_bytes + report.channel_bytes + report.table_bytes
    assert constants == pytest.approx(1024 * MODELS[name]["flash_kib"], rel=SHARE)
    done = make(tmp_path, "-s", "sanitize", f"CC={c_compiler}")
    assert done.returncode == 0, done.stdout
    assert "PASS 3 of 3" in done.stdout


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_a_front_s_model_is_exact_on_microcontrollers(name, target, make, tmp_path):
    prefix, emulator = TARGETS[target]
    missing = [tool for tool in (f"{prefix}gcc", emulator) if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed; see docs/export-formats.md")
    report = project(name, tmp_path)
    done = make(tmp_path, "-s", "run", f"TARGET={target}")
    assert done.returncode == 0, done.stdout
    assert "PASS 3 of 3" in done.stdout
    assert re.search(r"instructions of an inference \(estimate\): [1-9]\d+\n", done.stdout)
    image = tmp_path / "build" / target / "example.elf"
    ram, flash = sizes(prefix, image)
    # All data of the image is the arena, but for a few words of the example's.
    assert ram == pytest.approx(1024 * MODELS[name]["peak_memory_kib"], rel=SHARE)
    code = code_bytes(prefix, image)
    assert code < 16 * 1024
    promised = 1024 * MODELS[name]["flash_kib"] + code
    assert flash == pytest.approx(promised, rel=SHARE), report


def sizes(prefix: str, image: Path) -> tuple[int, int]:
    """Return the bytes of RAM and of flash of an image, without its test vectors."""
    listed = subprocess.run(
        [f"{prefix}size", "-A", str(image)], capture_output=True, text=True, check=True
    ).stdout
    of = {name: int(size) for name, size in re.findall(r"^\.(text|data|bss)\s+(\d+)", listed, re.M)}
    vectors = symbols(prefix, image, r"test_(?:in|out)puts")
    ram, constants = of.get("data", 0) + of.get("bss", 0), of.get("text", 0) + of.get("data", 0)
    return ram, constants - vectors


def code_bytes(prefix: str, image: Path) -> int:
    """Return the bytes of the image's functions and of the constants that are not the model's."""
    named = r"(?:weights|channels|table)_\w+"
    return sizes(prefix, image)[1] - symbols(prefix, image, named)


def symbols(prefix: str, image: Path, pattern: str) -> int:
    """Return the bytes of all symbols whose names match."""
    listed = subprocess.run(
        [f"{prefix}nm", "-S", str(image)], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(rf"^\S+ (\S+) \w (?:{pattern})$", listed, re.M)
    return sum(int(size, 16) for size in found)
