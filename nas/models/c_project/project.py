"""Writing the C project of a packed model: sources, build files, test vectors, labels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from nas.models.c_project.arena import place
from nas.models.c_project.constants import STORAGES
from nas.models.c_project.lowering import lower
from nas.models.c_project.pixels import pixel_sources, pixel_tables
from nas.models.c_project.program import Program
from nas.models.c_project.source import model_sources
from nas.models.formats.preprocessing import raw_inputs
from search_spaces.atomic import write_text_atomic
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import PackedModel

_COPIED = (
    "edge_nas_kernels.c", "edge_nas_kernels.h", "edge_nas_operators.c", "edge_nas_arithmetic.c",
    "edge_nas_arithmetic.h", "main.c", "port.h", "port_host.c", "port_cortex_m.c", "port_riscv.c",
    "cortex_m.ld", "riscv.ld", "Makefile", "CMakeLists.txt",
)  # fmt: skip
_VECTORS = 3


@dataclass(frozen=True)
class ProjectReport:
    """What a C project holds.

    Attributes:
        arena_bytes: of working memory.
        peak_bytes: activations alive at once; an arena of so many bytes has no gaps.
        weight_bytes: of packed weights.
        channel_bytes: of the output channels' constants.
        table_bytes: of tables of codes.
        operations: kernel calls of an inference.
        storage: how weights are stored.
        promised_peak_kib, promised_flash_kib: what the search promised, where it is known.
    """

    arena_bytes: int
    peak_bytes: int
    weight_bytes: int
    channel_bytes: int
    table_bytes: int
    operations: int
    storage: str
    promised_peak_kib: float | None = None
    promised_flash_kib: float | None = None


def write_c_project(
    model: PackedModel,
    folder: Path,
    *,
    name: str = "model",
    storage: str = "packed",
    labels: Sequence[str] = (),
    images: np.ndarray | None = None,
    expected: np.ndarray | None = None,
    promised: dict[str, float] | None = None,
    meaning: str = "",
    one_class: bool = True,
    pixels: Mapping[str, Any] | None = None,
) -> ProjectReport:
    """Write a C99 project that runs ``model``, with test vectors.

    Args:
        model: of integer layers throughout.
        folder: to write to; files of an earlier project are replaced.
        name: of the model, for the comments.
        storage: ``packed``: weights at their own bits; ``fields``: in 4 or 8 bits, which is read
            faster and is what ``flash_kib`` counts.
        labels: a name for each output, written to ``labels.txt``.
        images: float32 (n, channels, height, width), the inputs of the test vectors; by default
            three of normal noise.
        expected: float32 (n, outputs) for them; by default what the low-bit runtime gives.
        promised: ``peak_memory_kib`` and ``flash_kib`` of the search.
        meaning: in words, how inputs are made and outputs decoded.
        one_class: whether the outputs are scores of classes of which one is right.
        pixels: how pixels become inputs, see
            :func:`nas.models.formats.preprocessing.with_preprocessing`; the project then has a
            function that takes them, and test vectors of them instead of ``images``.

    Raises:
        InputError: the model has an operation without an integer kernel, or labels that do not
            fit its outputs.
        EnvironmentProblem: the low-bit runtime, asked for expected outputs, cannot be compiled.
    """
    if storage not in STORAGES:
        raise InputError(f"storage={storage!r} must be one of {', '.join(STORAGES)}")
    program = lower(model)
    if labels and len(labels) != program.output.count:
        raise InputError(f"{len(labels)} labels for {program.output.count} outputs of {name}")
    offsets, arena = place(program.sizes, program.lives, program.peak_bytes)
    sources = model_sources(program, offsets, arena, name=name, storage=storage)
    shape = model.graph["input"]["shape"]
    tables = raw = None
    if pixels is not None:
        tables = pixel_tables(program, pixels)
        raw, images = raw_inputs((_VECTORS, *shape), pixels, 0)
        expected = None
        more = pixel_sources(
            program, tables, reversed_channels=pixels.get("channel_order", "rgb") != "rgb"
        )
        sources = sources.extended(*more, table_bytes=tables.nbytes)
    if images is None:
        images = np.random.default_rng(0).standard_normal((_VECTORS, *shape)).astype(np.float32)
    if expected is None:
        expected = runtime_outputs(model, images)
    promised = promised or {}
    report = ProjectReport(
        arena,
        program.peak_bytes,
        sources.weight_bytes,
        sources.channel_bytes,
        sources.table_bytes,
        len(program.operations),
        storage,
        promised.get("peak_memory_kib"),
        promised.get("flash_kib"),
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {file: _template(file) for file in _COPIED}
    texts["model.c"], texts["model.h"] = sources.code, sources.header
    texts["test_vectors.h"] = vectors_header(program, images, expected, pixels=raw)
    texts["README.md"] = _readme(
        name, program, report, meaning, one_class=one_class, pixels=pixels is not None
    )
    texts["project.json"] = json.dumps({"model": name, **asdict(report)}, indent=2) + "\n"
    if labels:
        texts["labels.txt"] = "\n".join(labels) + "\n"
    for file, text in texts.items():
        write_text_atomic(folder / file, text)
    return report


def runtime_outputs(model: PackedModel, images: np.ndarray) -> np.ndarray:
    """Return float32 (n, outputs) of the low-bit runtime."""
    from devices.lowbit.network import LowBitNetwork

    network = LowBitNetwork(model, rounds=0)
    outputs = [network.run(image[None].astype(np.float32)).copy() for image in images]
    return np.concatenate(outputs).reshape(len(images), -1)


def input_codes(program: Program, images: np.ndarray) -> np.ndarray:
    """Return the codes, uint8 (n, height * width * channels), of float32 images."""
    from devices.lowbit.rounding import to_codes

    grid = program.input.grid
    assert grid is not None
    values = images.astype(np.float32).reshape(len(images), *program.input.shape)
    ratio = (values / np.float32(grid["scale"])).astype(np.float32)
    codes = to_codes(ratio, grid["zero_point"], 0, 2 ** grid["bits"] - 1)
    return codes.transpose(0, 2, 3, 1).reshape(len(images), -1)


def vectors_header(
    program: Program,
    images: np.ndarray,
    expected: np.ndarray,
    *,
    pixels: np.ndarray | None = None,
) -> str:
    """Return ``test_vectors.h``: codes of the images, or pixels, and bits of the outputs.

    Args:
        program: whose input has a grid.
        images: float32 (n, channels, height, width).
        expected: float32 (n, outputs).
        pixels: uint8 of the shape of ``images``, which they were made of.
    """
    if pixels is None:
        codes = input_codes(program, images)
    else:
        codes = pixels.reshape(len(pixels), *program.input.shape)
        codes = codes.transpose(0, 2, 3, 1).reshape(len(pixels), -1)
    bits = np.ascontiguousarray(expected, np.float32).reshape(len(images), -1).view(np.uint32)
    inputs = _rows(codes, str)
    outputs = _rows(bits, lambda value: f"0x{value:08x}u")
    return (
        f"/* {'Codes' if pixels is None else 'Pixels'} of example inputs, and the bits of the "
        "outputs. Generated. */\n"
        "#ifndef TEST_VECTORS_H\n#define TEST_VECTORS_H\n\n#include <stdint.h>\n\n"
        f"#define TEST_VECTORS {len(images)}\n\n"
        f"static const uint8_t test_inputs[TEST_VECTORS][{codes.shape[1]}] = {{\n{inputs}}};\n\n"
        f"static const uint32_t test_outputs[TEST_VECTORS][{bits.shape[1]}] = {{\n{outputs}}};\n\n"
        "#endif\n"
    )


def _rows(values: np.ndarray, text: Any) -> str:
    lines = []
    for row in values:
        items = [text(int(value)) for value in row]
        lines.append(
            "  {\n"
            + "".join(
                "    " + ", ".join(items[i : i + 16]) + ",\n" for i in range(0, len(items), 16)
            )
            + "  },\n"
        )
    return "".join(lines)


def _template(name: str) -> str:
    return (resources.files("nas.models.c_project") / "sources" / name).read_text("utf-8")


def _readme(
    name: str,
    program: Program,
    report: ProjectReport,
    meaning: str,
    *,
    one_class: bool,
    pixels: bool,
) -> str:
    constants = report.weight_bytes + report.channel_bytes + report.table_bytes
    promise = ""
    if report.promised_peak_kib is not None and not math.isnan(report.promised_peak_kib):
        promise += f"| promised peak of activations | {report.promised_peak_kib * 1024:.0f} |\n"
    if report.promised_flash_kib is not None:
        promise += f"| promised constants in flash | {report.promised_flash_kib * 1024:.0f} |\n"
    channels, height, width = program.input.shape
    return _README.format(
        name=name,
        arena=report.arena_bytes,
        peak=report.peak_bytes,
        weights=report.weight_bytes,
        records=report.channel_bytes,
        tables=report.table_bytes,
        constants=constants,
        promise=promise,
        channels=channels,
        height=height,
        width=width,
        outputs=program.output.count,
        calls=report.operations,
        scores=_SCORES if one_class else _NO_SCORES,
        pixels=_PIXELS.format(height=height, width=width, channels=channels) if pixels else "",
        meaning=meaning and f"\n## What goes in and comes out\n\n{meaning}\n",
    )


_README = """# {name} in C

C99 without heap and without floating point: {calls} calls of integer kernels over one arena.
Outputs have the same bits as the packed model in its reference runtime.

| | bytes |
| --- | --- |
| arena, all working memory beside the stack | {arena} |
| activations alive at once | {peak} |
{promise}| weights | {weights} |
| constants of output channels | {records} |
| tables of codes | {tables} |
| constants together | {constants} |

The code of the kernels and of the example comes on top (6 to 11 KiB on a Cortex-M4, 2 more on
RISC-V), and less than 2 KiB of stack.

## Build and run

    make run                        # this machine
    make sanitize                   # with the address and undefined-behaviour sanitizers
    make run TARGET=cortex-m4       # arm-none-eabi-gcc, qemu-system-arm
    make run TARGET=cortex-m7
    make run TARGET=rv32imc         # riscv64-unknown-elf-gcc, picolibc, qemu-system-riscv32
    cmake -B build && cmake --build build && ctest --test-dir build

The example runs the vectors of `test_vectors.h` and ends with 0 if every bit of every output is as
expected. Instruction counts come from the emulator: estimates of work, not of time on a board.

## Use

Write {height} x {width} x {channels} codes of a byte (height, width, channels: the channels of a
place together) to `edge_nas_input()` before each run; `edge_nas_run()` returns {outputs} float32
numbers as bytes. {scores}
A code is `round(value / EDGE_NAS_INPUT_SCALE) + EDGE_NAS_INPUT_ZERO`, clamped to 0 to
`EDGE_NAS_INPUT_HIGH`, of a value as the network takes it, that is after mean and deviation. The
arena is shared by all tensors: the input is gone after a run.
{pixels}{meaning}"""

_PIXELS = """
Or give {height} x {width} x {channels} pixels of a byte to `edge_nas_set_pixels()` before each run,
which makes their codes by a table: mean and deviation are in it.
"""

_SCORES = """`edge_nas_class()` is the index of the largest, `edge_nas_probabilities()` a softmax in
units of 1 / 32768."""

_NO_SCORES = """They are no scores of classes of which one is right: `edge_nas_class()` and
`edge_nas_probabilities()` mean nothing of this model."""
