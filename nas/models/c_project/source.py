"""The generated files of a C project: the network's constants and its calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from devices.lowbit.integers.gates import Operand
from devices.lowbit.integers.steps import ordered
from nas.models.c_project.constants import (
    CHANNEL_BYTES,
    channels,
    fixed_sum,
    float_bits,
    multiplier,
    stored_weights,
)
from nas.models.c_project.program import Operation, Program, Tensor
from search_spaces.errors import InputError


@dataclass(frozen=True)
class Sources:
    """Text of ``model.c`` and ``model.h``.

    Attributes:
        code, header: the text.
        weight_bytes, channel_bytes: of the weights and of the output channels' constants.
        table_bytes: of tables of codes.
    """

    code: str
    header: str
    weight_bytes: int
    channel_bytes: int
    table_bytes: int

    def extended(self, code: str, header: str, *, table_bytes: int) -> Sources:
        """Return them with more at the end of ``model.c`` and ``model.h``, tables among it."""
        guard = "\n#endif\n"
        return replace(
            self,
            code=self.code + code,
            header=self.header.removesuffix(guard) + header + guard,
            table_bytes=self.table_bytes + table_bytes,
        )


def model_sources(
    program: Program, offsets: Sequence[int], arena: int, *, name: str, storage: str = "packed"
) -> Sources:
    """Return the C of a network.

    Args:
        program: from :func:`nas.models.c_project.lowering.lower`.
        offsets: place of each storage in the arena.
        arena: its bytes.
        name: of the model, for the comments.
        storage: see :data:`nas.models.c_project.constants.STORAGES`.
    """
    writer = _Writer(offsets, storage)
    for i, operation in enumerate(program.operations):
        writer.operation(i, operation)
    code = _CODE.format(
        name=_comment(name),
        constants="\n".join(writer.constants),
        calls="\n".join(f"  {call}" for call in writer.calls),
        input=offsets[program.input.storage],
        output=offsets[program.output.storage],
    )
    channels_, height, width = program.input.shape
    grid = program.input.grid
    assert grid is not None
    header = _HEADER.format(
        name=_comment(name),
        channels=channels_,
        height=height,
        width=width,
        scale=float(np.float32(grid["scale"])).hex(),
        zero=grid["zero_point"],
        high=2 ** grid["bits"] - 1,
        outputs=program.output.count,
        arena=arena,
        weights=writer.weight_bytes,
        records=writer.channel_bytes,
    )
    return Sources(code, header, writer.weight_bytes, writer.channel_bytes, writer.table_bytes)


class _Writer:
    def __init__(self, offsets: Sequence[int], storage: str) -> None:
        self.offsets, self.storage = offsets, storage
        self.constants: list[str] = []
        self.calls: list[str] = []
        self.weight_bytes = self.channel_bytes = self.table_bytes = 0
        self._written: dict[bytes, str] = {}

    def operation(self, i: int, operation: Operation) -> None:
        """Write the call of the ``i``-th operation and the constants that it reads."""
        getattr(self, f"_{operation.kind}")(i, operation)

    def _at(self, tensor: Tensor) -> str:
        return f"arena + {self.offsets[tensor.storage]}"

    def _call(self, operation: Operation, text: str) -> None:
        self.calls.append(f"{text} /* {_comment(operation.name)} */")

    def _table_name(self, table: np.ndarray | None) -> str:
        """Return the array of a table of codes, written once."""
        if table is None:
            return "0"
        return self._numbers("uint8_t", "table", table.astype(np.uint8))

    def _conv(self, i: int, operation: Operation, run: str = "en_run_conv") -> None:
        x, out, v = operation.inputs[0], operation.output, operation.values
        weights, rows = stored_weights(operation, self.storage), channels(operation)
        self.weight_bytes += len(weights.data)
        self.channel_bytes += CHANNEL_BYTES * len(rows)
        self.constants.append(_array("uint8_t", f"weights_{i}", weights.data.tolist()))
        body = _wrapped([f"{{{b}, {m}, {f}, {s}}}" for b, m, f, s in rows])
        self.constants.append(f"static const en_channel channels_{i}[{len(rows)}] = {{\n{body}}};")
        assert x.grid is not None
        grid = out.grid
        limits = (x.shape, out.shape)
        if any(side > 32000 for shape in limits for side in shape):
            raise InputError(f"{operation.name}: the C kernels end at sides of 32000")
        self.constants.append(
            f"static const en_conv conv_{i} = {{\n"
            f"  weights_{i}, channels_{i}, {self._table_name(x.table)},\n"
            f"  {x.shape[1]}, {x.shape[2]}, {x.shape[0]},\n"
            f"  {out.shape[1]}, {out.shape[2]}, {out.shape[0]}, {v['groups']},\n"
            f"  {_list(v['kernel'])}, {_list(v['strides'])}, {_list(v['dilations'])}, "
            f"{_list(v['pads'][:2])},\n"
            f"  {weights.bits}, {weights.low}, {weights.step}, {x.grid['zero_point']},\n"
            f"  {'EN_CODES' if grid else 'EN_FLOATS'}, {v['function']}, "
            f"{grid['zero_point'] if grid else 0}, {2 ** grid['bits'] - 1 if grid else 0}, "
            f"0x{float_bits(v['scale']):08x}u, {self._function_name(v['numbers'], grid)}}};"
        )
        self._call(operation, f"{run}(&conv_{i}, {self._at(x)}, {self._at(out)});")

    def _function_name(self, node: dict[str, Any] | None, grid: dict[str, Any] | None) -> str:
        """Return the address of a function of floats, written once with its tables."""
        if node is None:
            return "0"
        assert grid is not None
        places = codes = slopes = "0"
        count = 0
        if node["op"] == "steps":
            steps = node["steps"]
            count = len(steps.places)
            places = self._numbers("int32_t", "places", ordered(steps.places))
            codes = self._numbers("uint8_t", "codes", steps.codes)
        else:
            slopes = self._numbers("uint32_t", "slopes", node["slopes"].view(np.uint32))
        text = (
            f"{{{places}, {codes}, {slopes}, 0x{float_bits(grid['scale']):08x}u, {count}, "
            f"{grid['zero_point']}, {2 ** grid['bits'] - 1}}}"
        )
        return "&" + self._once("function", text.encode(), "en_function", f" = {text};")

    def _numbers(self, kind: str, name: str, values: np.ndarray) -> str:
        """Return the array of some constants, written once and counted among the tables."""
        if not len(values):
            return "0"
        values = np.ascontiguousarray(values)
        known = len(self._written)
        body = _wrapped([str(value) for value in values.tolist()])
        text = f"[{len(values)}] = {{\n{body}}};"
        found = self._once(name, f"{kind} ".encode() + values.tobytes(), kind, text)
        self.table_bytes += values.nbytes * (len(self._written) > known)
        return found

    def _once(self, name: str, key: bytes, kind: str, text: str) -> str:
        """Return the name of a constant of a type; what is known by ``key`` is written once."""
        if key not in self._written:
            self._written[key] = f"{name}_{len(self._written)}"
            self.constants.append(f"static const {kind} {self._written[key]}{text}")
        return self._written[key]

    def _function(self, i: int, operation: Operation) -> None:
        x, out = operation.inputs[0], operation.output
        name = self._function_name(operation.values["numbers"], out.grid)
        numbers = [out.shape[1] * out.shape[2], out.shape[0]]
        self._call(
            operation,
            f"en_run_function({name}, {self._at(x)}, {self._at(out)}, {_list(numbers)});",
        )

    def _depthwise(self, i: int, operation: Operation) -> None:
        self._conv(i, operation, "en_run_depthwise")

    def _sum(self, i: int, operation: Operation) -> None:
        (a, b), out, v = operation.inputs, operation.output, operation.values
        ratios = [v["ratio_a"], v["ratio_b"], v["constant"]]
        fixed = fixed_sum(*ratios)
        assert out.grid is not None
        bits = ", ".join(f"0x{float_bits(value):08x}u" for value in ratios)
        numbers = [fixed[k] for k in ("fixed_a", "fixed_b", "fixed_constant", "doubt", "point")]
        self.constants.append(
            f"static const en_sum sum_{i} = {{{bits}, {_list(numbers)}, "
            f"{2 ** out.grid['bits'] - 1}}};"
        )
        self._call(
            operation,
            f"en_run_sum(&sum_{i}, {self._at(a)}, {self._at(b)}, {self._at(out)}, {out.count});",
        )

    def _product(self, i: int, operation: Operation) -> None:
        (a, b), out = operation.inputs, operation.output
        mantissa, shift = multiplier(operation.values["multiplier"], operation.name)
        assert a.grid is not None and b.grid is not None and out.grid is not None
        pixels, width = a.shape[1] * a.shape[2], a.shape[0]
        numbers = [
            pixels, width, int(operation.values["shared"]), a.grid["zero_point"],
            b.grid["zero_point"], mantissa, shift, out.grid["zero_point"],
            2 ** out.grid["bits"] - 1,
        ]  # fmt: skip
        self._call(
            operation,
            f"en_run_product({self._at(a)}, {self._at(b)}, {self._at(out)}, {_list(numbers)});",
        )

    def _gate(self, i: int, operation: Operation) -> None:
        out, v = operation.output, operation.values
        mantissa, shift = multiplier(v["multiplier"], operation.name)
        assert out.grid is not None
        for side, operand, (by_pixel, by_channel) in zip(
            "ab", v["operands"], v["reaches"], strict=True
        ):
            self._operand(f"side_{i}_{side}", operand, by_pixel, by_channel)
        numbers = [
            out.shape[1] * out.shape[2], out.shape[0], v["shift"], mantissa, shift,
            out.grid["zero_point"], 2 ** out.grid["bits"] - 1,
        ]  # fmt: skip
        a, b = (self._at(x) for x in operation.inputs)
        self._call(
            operation,
            f"en_run_gate(&side_{i}_a, &side_{i}_b, {a}, {b}, {self._at(out)}, {_list(numbers)});",
        )

    def _operand(self, name: str, operand: Operand, by_pixel: bool, by_channel: bool) -> None:
        table = "0"
        if operand.table is not None:
            table = self._numbers("int32_t", "curve", operand.table.ravel())
        numbers = [operand.low, operand.high, operand.kind, operand.zero_point]
        numbers += [operand.cell_bits, by_pixel, by_channel]
        power = float_bits(np.float32(2.0**operand.point))
        self.constants.append(
            f"static const en_operand {name} = {{{table}, 0x{power:08x}u, {_list(numbers)}}};"
        )

    def _resample(self, i: int, operation: Operation) -> None:
        x, out, v = operation.inputs[0], operation.output, operation.values
        mantissa, shift = multiplier(v["multiplier"], operation.name)
        assert out.grid is not None
        self._operand(f"image_{i}", v["operand"], True, True)
        axes = []
        for taps in v["axes"]:
            first = self._numbers("uint16_t", "first", taps.first.astype(np.uint16))
            weights = self._numbers("int32_t", "taps", taps.weights.ravel())
            axes.append(f"{{{first}, {weights}, {taps.weights.shape[1]}}}")
        zero = out.grid["zero_point"]
        numbers = [
            x.shape[2], x.shape[0], *out.shape[1:], v["lift"], mantissa, shift, zero,
            zero if v["positive"] else 0, 2 ** out.grid["bits"] - 1,
        ]  # fmt: skip
        self.constants.append(
            f"static const en_resample resample_{i} = {{&image_{i}, {', '.join(axes)}, "
            f"{_list(numbers)}}};"
        )
        self._call(operation, f"en_run_resample(&resample_{i}, {self._at(x)}, {self._at(out)});")

    def _norm(self, i: int, operation: Operation) -> None:
        out, norm = operation.output, operation.values["norm"]
        gain = self._numbers("uint32_t", "gain", norm.gain.view(np.uint32))
        bias = self._numbers("uint32_t", "bias", norm.bias.view(np.uint32))
        numbers = [
            norm.low,
            norm.limit,
            out.shape[1] * out.shape[2],
            out.shape[0],
            norm.groups,
            norm.shift,
        ]
        self.constants.append(
            f"static const en_norm norm_{i} = {{{gain}, {bias}, {norm.epsilon}, "
            f"0x{float_bits(np.float32(2.0**norm.point)):08x}u, {_list(numbers)}}};"
        )
        self._call(operation, f"en_run_norm(&norm_{i}, {self._at(out)});")

    def _mean(self, i: int, operation: Operation) -> None:
        x, out = operation.inputs[0], operation.output
        mantissa, shift = multiplier(operation.values["multiplier"], operation.name)
        assert x.grid is not None
        numbers = [x.shape[1] * x.shape[2], x.shape[0], x.grid["zero_point"], mantissa, shift]
        if out.grid is None:
            run = "en_run_mean_values"
        else:
            run = "en_run_mean"
            numbers += [out.grid["zero_point"], 2 ** out.grid["bits"] - 1]
        self._call(operation, f"{run}({self._at(x)}, {self._at(out)}, {_list(numbers)});")

    def _average_pool(self, i: int, operation: Operation) -> None:
        x, out, v = operation.inputs[0], operation.output, operation.values
        assert x.grid is not None and out.grid is not None
        # Places in equal rows and equal columns have one factor.
        factors, rows = np.unique(v["multiplier"], axis=0, return_inverse=True)
        factors, columns = np.unique(factors, axis=1, return_inverse=True)
        if max(factors.shape) > 256:
            raise InputError(
                f"{operation.name}: an average pool with {max(factors.shape)} kinds of windows; "
                "the C kernels know 256"
            )
        pairs = [multiplier(value, operation.name) for value in factors.ravel()]
        self.table_bytes += 8 * len(pairs)
        body = _wrapped([f"{{{m}, {s}}}" for m, s in pairs])
        self.constants.append(
            f"static const en_multiplier factors_{i}[{len(pairs)}] = {{\n{body}}};"
        )
        kinds = [
            self._numbers("uint8_t", name, places.reshape(-1).astype(np.uint8))
            for name, places in (("rows", rows), ("columns", columns))
        ]
        self._call(
            operation,
            f"en_run_average_pool({self._pool(i, operation)}, {self._at(x)}, {self._at(out)}, "
            f"factors_{i}, {', '.join(kinds)}, "
            f"{_list([factors.shape[1], x.grid['zero_point'], out.grid['zero_point']])}, "
            f"{2 ** out.grid['bits'] - 1});",
        )

    def _pool(self, i: int, operation: Operation) -> str:
        x, out, v = operation.inputs[0], operation.output, operation.values
        numbers = [
            x.shape[1], x.shape[2], x.shape[0], *out.shape[1:], *v["kernel"], *v["strides"],
            *v["pads"][:2],
        ]  # fmt: skip
        self.constants.append(f"static const en_pool pool_{i} = {{{_list(numbers)}}};")
        return f"&pool_{i}"

    def _max_pool(self, i: int, operation: Operation) -> None:
        x, out, pool = operation.inputs[0], operation.output, self._pool(i, operation)
        self._call(operation, f"en_run_max_pool({pool}, {self._at(x)}, {self._at(out)});")

    def _table(self, i: int, operation: Operation) -> None:
        x, out = operation.inputs[0], operation.output
        table = self._table_name(operation.values["table"])
        self._call(
            operation, f"en_run_table({table}, {self._at(x)}, {self._at(out)}, {out.count});"
        )

    def _planar(self, i: int, operation: Operation) -> None:
        x, out = operation.inputs[0], operation.output
        numbers = [x.shape[1] * x.shape[2], x.shape[0]]
        self._call(operation, f"en_run_planar({self._at(x)}, {self._at(out)}, {_list(numbers)});")

    def _copy(self, i: int, operation: Operation) -> None:
        x, out = operation.inputs[0], operation.output
        numbers = [x.shape[1] * x.shape[2], x.shape[0], out.shape[0], operation.values["to"]]
        self._call(operation, f"en_run_copy({self._at(x)}, {self._at(out)}, {_list(numbers)});")

    def _pick(self, i: int, operation: Operation) -> None:
        x, out = operation.inputs[0], operation.output
        assert x.grid is not None
        names = []
        for axis, places in zip("crx", operation.values["places"], strict=True):
            names.append(f"{axis}_{i}")
            self.table_bytes += places.nbytes
            self.constants.append(
                f"static const uint16_t {names[-1]}[] = {{{_list(places.tolist())}}};"
            )
        numbers = [*x.shape[:1], x.shape[2], *out.shape, x.grid["zero_point"]]
        self._call(
            operation,
            f"en_run_pick({self._at(x)}, {self._at(out)}, {', '.join(names)}, {_list(numbers)});",
        )

    def _spread(self, i: int, operation: Operation) -> None:
        x, out, v = operation.inputs[0], operation.output, operation.values
        numbers = [x.shape[1], x.shape[2], out.shape[0], v["size"], *v["steps"]]
        self._call(operation, f"en_run_spread({self._at(x)}, {self._at(out)}, {_list(numbers)});")

    def _values(self, i: int, operation: Operation) -> None:
        x, out = operation.inputs[0], operation.output
        mantissa, shift = multiplier(operation.values["multiplier"], operation.name)
        assert x.grid is not None
        numbers = [out.count, x.grid["zero_point"], mantissa, shift]
        self._call(operation, f"en_run_values({self._at(x)}, {self._at(out)}, {_list(numbers)});")


def _list(values: Sequence[int]) -> str:
    return ", ".join(str(int(value)) for value in values)


def _array(kind: str, name: str, values: Sequence[int] | bytes) -> str:
    body = _wrapped([str(value) for value in values])
    return f"static const {kind} {name}[{len(values)}] = {{\n{body}}};"


def _wrapped(items: Sequence[str], width: int = 96) -> str:
    lines, line = [], " "
    for item in items:
        if len(line) + len(item) + 2 > width:
            lines.append(line)
            line = " "
        line += f" {item},"
    return "\n".join([*lines, line]) + "\n"


def _comment(text: str) -> str:
    """Return text that cannot end a C comment."""
    printable = "".join(c if c.isprintable() and ord(c) < 127 else "?" for c in text)
    return printable.replace("*/", "* /").replace("\\", "/")


_CODE = """/* {name}: constants and calls. Generated; change the model, not this file. */
#include "model.h"

#include <string.h>

#include "edge_nas_kernels.h"

static uint8_t arena[EDGE_NAS_ARENA_BYTES];

{constants}

uint8_t *edge_nas_input(void) {{ return arena + {input}; }}

const uint8_t *edge_nas_run(void) {{
{calls}
  return arena + {output};
}}

int edge_nas_class(void) {{ return en_argmax(arena + {output}, EDGE_NAS_OUTPUTS); }}

void edge_nas_probabilities(uint16_t *probabilities) {{
  en_softmax(arena + {output}, EDGE_NAS_OUTPUTS, probabilities);
}}
"""

_HEADER = """/* {name}. Generated; change the model, not this file. */
#ifndef EDGE_NAS_MODEL_H
#define EDGE_NAS_MODEL_H

#include <stdint.h>

#define EDGE_NAS_INPUT_CHANNELS {channels}
#define EDGE_NAS_INPUT_HEIGHT {height}
#define EDGE_NAS_INPUT_WIDTH {width}
#define EDGE_NAS_INPUT_SIZE \\
  (EDGE_NAS_INPUT_CHANNELS * EDGE_NAS_INPUT_HEIGHT * EDGE_NAS_INPUT_WIDTH)
/* A code is clamp(round(value / scale) + zero point), 0 to EDGE_NAS_INPUT_HIGH. */
#define EDGE_NAS_INPUT_SCALE {scale}f
#define EDGE_NAS_INPUT_ZERO {zero}
#define EDGE_NAS_INPUT_HIGH {high}
#define EDGE_NAS_OUTPUTS {outputs}

/* All working memory; beside it only the stack is used, below 2 KiB. */
#define EDGE_NAS_ARENA_BYTES {arena}
#define EDGE_NAS_WEIGHT_BYTES {weights}
#define EDGE_NAS_CHANNEL_BYTES {records}

/* Where the input goes, EDGE_NAS_INPUT_SIZE codes, channels last; write it before each run. */
uint8_t *edge_nas_input(void);
/* Runs once; returns EDGE_NAS_OUTPUTS float32 numbers as bytes of this machine's order. They need
 * not be aligned: copy them with memcpy. */
const uint8_t *edge_nas_run(void);
/* Of the last run: the index of the largest output, and a softmax in units of 1 / 32768. */
int edge_nas_class(void);
void edge_nas_probabilities(uint16_t *probabilities);

#endif
"""
