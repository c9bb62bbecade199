"""Random packed networks of every operation that the C kernels have."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces.model_files.packed_model import Encoding, PackedModel, pack_codes


class Builder:
    """Builds the graph of a packed model node by node, with random weights."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> None:
        self.rng, self.bits = rng, bits
        self.tensors: dict[str, np.ndarray] = {}
        self.grids: dict[str, dict[str, Any]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {"q": shape}
        self.nodes = [{"op": "quantize", "inputs": ["input"], "output": "q"}]
        self.grid("q", 8, 0.02)
        self.shape = shape

    def grid(self, name: str, bits: int, scale: float, zero: int | None = None) -> None:
        zero = int(self.rng.integers(0, 2**bits)) if zero is None else zero
        self.grids[name] = {"scale": float(np.float32(scale)), "zero_point": zero, "bits": bits}

    def like(self, name: str, source: str) -> None:
        self.grids[name] = dict(self.grids[source])

    def weights(self, name: str, shape: tuple[int, ...], bits: int | None = None) -> dict[str, Any]:
        bits = bits or self.bits
        encoding = Encoding(bits, -(2 ** (bits - 1)))
        codes = self.rng.integers(encoding.low, -encoding.low, shape)
        if bits == 1:
            encoding, codes = Encoding(1, -1, 2), 2 * self.rng.integers(0, 2, shape) - 1
        self.tensors[f"{name}.codes"] = pack_codes(codes, encoding)
        self.tensors[f"{name}.scale"] = self.rng.uniform(1e-4, 3e-2, shape[0]).astype(np.float32)
        self.tensors[f"{name}.bias"] = self.rng.integers(-900, 900, shape[0]).astype(np.int32)
        entry = {
            "shape": list(shape), "bits": bits, "low": encoding.low, "stride": encoding.stride,
            "fill": int(self.rng.choice([0, 64, 127])),
        }  # fmt: skip
        return entry | {key: f"{name}.{key}" for key in ("codes", "scale", "bias")}

    def conv(
        self,
        source: str,
        out: str,
        outputs: int,
        kernel: tuple[int, ...],
        *,
        strides: tuple[int, ...] | None = None,
        pads: tuple[int, ...] | None = None,
        dilations: tuple[int, ...] | None = None,
        groups: int = 1,
        bits: int = 8,
        scale: float = 0.05,
        activation: str | None = None,
    ) -> str:
        channels, *sides = self.shapes[source]
        rank = len(kernel)
        strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
        pads = pads or tuple(k // 2 for k in kernel) * 2
        made = f"{out}.float" if activation else out
        self.nodes.append(
            {
                "op": "conv", "layer": out, "inputs": [source], "output": made,
                "weights": self.weights(out, (outputs, channels // groups, *kernel)),
                "kernel": list(kernel), "strides": list(strides), "pads": list(pads),
                "dilations": list(dilations), "groups": groups,
            }
        )  # fmt: skip
        if activation:
            attributes = {"alpha": 1 / 6, "beta": 0.5} if activation == "HardSigmoid" else {}
            self.nodes += [
                {"op": activation, "inputs": [made], "output": f"{out}.on",
                 "attributes": attributes},
                {"op": "quantize", "inputs": [f"{out}.on"], "output": out},
            ]  # fmt: skip
        self.grid(out, bits, scale)
        size = [
            (n + pads[i] + pads[i + rank] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
            for i, n in enumerate(sides)
        ]
        self.shapes[out] = (outputs, *size)
        return out

    def node(self, op: str, inputs: list[str], out: str, **entry: Any) -> str:
        self.nodes.append({"op": op, "inputs": inputs, "output": out, **entry})
        self.shapes.setdefault(out, self.shapes.get(inputs[0], ()))
        return out

    def model(self, output: str) -> PackedModel:
        source = {"name": "input", "shape": list(self.shape)}
        graph = {"input": source, "output": output, "grids": self.grids, "nodes": self.nodes}
        return PackedModel(graph, self.tensors)


def everything(seed: int, bits: int) -> PackedModel:
    """A network of every operation, with shapes that fit no block size."""
    rng = np.random.default_rng(seed)
    b = Builder(rng, (3, 11, 9), bits)
    wide = int(rng.integers(9, 20))
    b.conv("q", "stem", wide, (3, 3), strides=(2, 1), pads=(1, 0, 1, 2), activation="HardSwish")
    b.conv("stem", "deep", wide, (5, 3), groups=wide, bits=5, dilations=(1, 2))
    b.conv("deep", "long", wide, (3, 3), bits=8, scale=0.2)
    b.node("requantize", ["stem"], "narrow")
    b.grid("narrow", 4, 0.3)
    b.conv("narrow", "point", 72, (1, 1), bits=4, scale=0.3)
    b.conv("point", "grouped", 8, (3, 3), groups=4, bits=6)
    b.conv("point", "reduced", wide, (1, 1), pads=(0, 0, 0, 0))
    b.conv("grouped", "matched", wide, (1, 1))
    b.node("add", ["matched", "long"], "sum") if b.shapes["matched"] == b.shapes["long"] else (
        b.node("add", ["matched", "reduced"], "sum")
    )
    b.grid("sum", 8, 0.15)
    b.node("max_pool", ["sum"], "pooled", kernel=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    b.like("pooled", "sum")
    _, h, w = b.shapes["sum"]
    b.shapes["pooled"] = (wide, (h + 2 - 3) // 2 + 1, w + 1 - 2 + 1)
    b.node("average_pool", ["pooled"], "mean", kernel=[2, 2], strides=[1, 1], pads=[0, 1, 1, 0])
    b.grid("mean", 7, 0.2, 3)
    sides = {"axes": [0, 1, 2, 3], "mode": "edge"}
    b.node("pad", ["mean"], "wider", pads=[0, 0, 1, 0, 0, 0, 0, 2], **sides)
    b.like("wider", "mean")
    ends = {"starts": [-1, 1, 2], "ends": [-9999, 9999, 9999], "steps": [-1, 2, 1]}
    b.node("slice", ["wider"], "cut", axes=[1, 2, 3], **ends)
    b.like("cut", "mean")
    b.node("resize", ["cut"], "large", factors=[2, 1])
    b.like("large", "mean")
    pads = [0, 2, 0, 0, 0, 1, -1, 1]
    b.node("pad", ["large"], "pooled2", pads=pads, axes=[0, 1, 2, 3], mode="constant")
    b.like("pooled2", "mean")
    h, w = b.shapes["pooled"][1:]
    b.shapes["pooled2"] = (wide + 3, 2 * ((h + 1) // 2) - 1, w + 1)
    b.conv("pooled2", "moved", wide, (1, 1), scale=0.2)
    b.conv("moved", "deep2", 12, (1, 1))
    for mode in ("DCR", "CRD"):
        b.node("depth_to_space", ["deep2"], mode, size=2, mode=mode)
        b.like(mode, "deep2")
    b.node("concat", ["DCR", "CRD"], "spread", axis=1)
    b.like("spread", "deep2")
    b.node("shuffle", ["spread"], "shuffled", groups=2)
    b.like("shuffled", "deep2")
    h, w = b.shapes["moved"][1:]
    b.shapes["shuffled"] = (6, 2 * h, 2 * w)
    b.conv("shuffled", "mixed", wide, (2, 2), strides=(2, 2), pads=(0, 0, 0, 0), scale=0.2)
    b.node("global_average_pool", ["mixed"], "level")
    b.grid("level", 8, 0.1)
    b.shapes["level"] = (wide, 1, 1)
    b.node("global_average_pool", ["pooled"], "squeezed")
    b.grid("squeezed", 8, 0.1)
    b.shapes["squeezed"] = (wide, 1, 1)
    b.node("add", ["squeezed", "level"], "levels")
    b.grid("levels", 8, 0.15)
    b.shapes["levels"] = (wide, 1, 1)
    b.conv("levels", "gate", wide, (1, 1), activation="HardSigmoid", scale=1 / 255)
    b.node("dequantize", ["pooled"], "pooled.float")
    b.node("dequantize", ["gate"], "gate.value")
    b.node("Mul", ["pooled.float", "gate.value"], "gated.float")
    b.node("quantize", ["gated.float"], "gated")
    b.grid("gated", 8, 0.2)
    b.conv("gated", "side", 5, (1, 1))
    b.like("side", "gated")
    b.node("concat", ["gated", "side"], "both", axis=1)
    b.like("both", "gated")
    b.shapes["both"] = (wide + 5, *b.shapes["gated"][1:])
    b.node("dequantize", ["both"], "both.float")
    b.node("HardSwish", ["both.float"], "swish.float")
    b.node("quantize", ["swish.float"], "swish")
    b.grid("swish", 7, 0.1)
    b.node("flatten", ["swish"], "flat", axis=1)
    b.like("flat", "swish")
    count = int(np.prod(b.shapes["both"]))
    b.node("linear", ["flat"], "logits", layer="head", weights=b.weights("head", (7, count)))
    return b.model("logits")


@pytest.fixture
def network() -> Callable[[int, int], PackedModel]:
    """A function of a seed and of weight bits that makes a network of every operation."""
    return everything


@pytest.fixture
def builder() -> type[Builder]:
    return Builder


@pytest.fixture
def c_compiler() -> str:
    """A C compiler, or a skip."""
    for name in ("gcc", "cc", "clang"):
        if found := shutil.which(name):
            return found
    pytest.skip("no C compiler")


@pytest.fixture
def make() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs make in a folder; output and errors together."""
    if not shutil.which("make"):
        pytest.skip("no make")

    def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments], cwd=folder, text=True, timeout=300, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return call
