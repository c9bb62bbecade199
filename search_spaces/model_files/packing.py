"""From an exported integer ONNX to a low-bit model file with weights at their own bit-widths.

The file holds the graph in which quantisation is fused into the operations around it, as an
integer runtime executes it, see docs/lowbit-format.md. ONNX has no 3-bit integer and stores
codes of 5 to 8 bits as bytes; the packed tensors take what the search promised.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.decoders import Region, decoder_regions
from search_spaces.model_files.fills import unfilled
from search_spaces.model_files.onnx_parts import attributes_of, nominal_bits, plain
from search_spaces.model_files.packed_model import (
    Encoding,
    PackedModel,
    pack_codes,
    write_packed_model,
)

if TYPE_CHECKING:
    import onnx

LARGEST_CONSTANT = 1024
"""Floats of a constant that stands in the graph; larger ones are tensors."""

_REARRANGE = {"Flatten": "flatten", "Reshape": "reshape", "Transpose": "transpose"}
_ON_CODES = {
    "Add": "add",
    "GlobalAveragePool": "global_average_pool",
    "MaxPool": "max_pool",
    "Concat": "concat",
}
_SAME_GRID = ("MaxPool", "Concat")
_POOL_ATTRIBUTES = {"kernel_shape": "kernel", "strides": "strides", "pads": "pads"}


def pack_onnx(source: Path, path: Path, *, metadata: dict[str, str] | None = None) -> PackedModel:
    """Write the integer ONNX ``source`` as a low-bit model file; returns what was written.

    Args:
        source: a file of ``supernet.onnx.export.export_onnx``, or any ONNX in QDQ form with
            per-channel symmetric weights and per-tensor activations.
        path: file to write.
        metadata: text stored in the file.

    Raises:
        InputError: the file is no ONNX, or has a form that cannot be packed; the message names
            the node.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(source))
    except (OSError, DecodeError) as error:
        raise InputError(f"{source} cannot be read as ONNX: {error}") from error
    packed = pack_model(model)
    packed.metadata.update(metadata or {})
    write_packed_model(path, packed)
    return packed


def pack_model(model: onnx.ModelProto) -> PackedModel:
    """Return an ONNX model in QDQ form as a packed model, see :func:`pack_onnx`."""
    return _Packer(model).run()


@dataclass(frozen=True)
class _Constant:
    """A tensor known before the network runs.

    Attributes:
        value: its array, as the network uses it.
        codes, scale: integers, and the float32 scale of each channel, where it is dequantised.
        factored: the integers before a factor multiplied them, where one did.
    """

    value: np.ndarray
    codes: np.ndarray | None = None
    scale: np.ndarray | None = None
    factored: np.ndarray | None = None


class _Packer:
    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import numpy_helper

        self.model, self.graph = model, model.graph
        self.constants = {
            item.name: _Constant(plain(numpy_helper.to_array(item)))
            for item in self.graph.initializer
        }
        self.users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                self.users[name].append(node)
        self.nodes: list[dict[str, Any]] = []
        self.grids: dict[str, dict[str, Any]] = {}
        self.tensors: dict[str, np.ndarray] = {}
        # A tensor of the ONNX graph -> the tensor here; floats that are dequantised codes are
        # kept as the codes until something needs the floats.
        self.names: dict[str, str] = {}
        self.dequantized: dict[str, str] = {}
        self.floats: dict[str, str] = {}
        # Operations whose output may yet become codes.
        self.open: dict[str, dict[str, Any]] = {}
        # The sum with a bias, which is part of the layer -> the layer's product.
        self.absorbed: dict[str, str] = {}

    def run(self) -> PackedModel:
        regions = decoder_regions(self.model, self._value)
        inputs = [i for i in self.graph.input if i.name not in self.constants]
        if not regions and (len(inputs) != 1 or len(self.graph.output) != 1):
            raise InputError("only networks with one input and one output can be packed")
        if regions:
            # Keys and values are the runtime's own.
            inputs = [i for i in inputs if i.name in regions[0].inputs]
        described = [
            {"name": i.name, "shape": [d.dim_value for d in i.type.tensor_type.shape.dim][1:]}
            for i in inputs
        ]
        for entry in described:
            self.names[entry["name"]] = entry["name"]
        self._nodes(regions)
        output = self._float(self.graph.output[0].name)
        graph = {
            "input": described[0],
            **({"others": described[1:]} if described[1:] else {}),
            "output": output,
            "grids": self.grids,
            "nodes": self.nodes,
        }
        return PackedModel(graph, self.tensors)

    def _nodes(self, regions: list[Region]) -> None:
        """Pack every node; those of a region as one, and nothing of what only it needs."""
        inside = {index for region in regions for index in region.nodes}
        hidden = {name for index in inside for name in self.graph.node[index].output}
        hidden -= {region.output for region in regions}
        made = {region.output: region for region in regions}
        for index, node in enumerate(self.graph.node):
            region = made.get(node.output[0])
            if region is not None:
                self._region(region)
            elif index not in inside and not hidden.intersection(node.input):
                self._node(node)

    def _region(self, region: Region) -> None:
        entry = {key: value for key, value in region.entry.items() if key != "op"}
        for key, array in region.tables.items():
            entry[key] = f"{region.output}.{key}"
            self.tensors[entry[key]] = np.ascontiguousarray(array, np.float32)
        inputs = [self._float(name) for name in region.inputs]
        output = region.output if region.grid is None else f"{region.output}.floats"
        self._emit(region.entry["op"], inputs, output, **entry)
        if region.grid is not None:
            self._emit("quantize", [output], region.output)
            self.grids[region.output] = dict(region.grid)
        self.names[region.output] = region.output

    def _value(self, name: str) -> np.ndarray | None:
        return self.constants[name].value if name in self.constants else None

    # What a node is.

    def _node(self, node: onnx.NodeProto) -> None:
        op, out = node.op_type, node.output[0]
        if out in self.absorbed:
            self._alias(self.absorbed[out], out)
        elif all(not name or name in self.constants for name in node.input):
            self.constants[out] = self._fold(node)
        elif op == "QuantizeLinear":
            self._quantize(node)
        elif op == "DequantizeLinear" and self.names[node.input[0]] not in self.grids:
            # Codes that a float operation moved about (nearest neighbours): values by now.
            self._alias(node.input[0], out)
        elif op == "DequantizeLinear":
            self.dequantized[out] = self.names[node.input[0]]
        elif op == "Clip" and self.names.get(node.input[0]) in self.grids:
            self._narrow(node)
        elif op in ("Conv", "Gemm", "MatMul"):
            self._layer(node)
        elif op == "Identity" or (
            op == "Relu" and self._clamps(out) and node.input[0] in self.open
        ):
            self._alias(node.input[0], out)
        elif op in _REARRANGE and self._codes(node.input[0]) is not None:
            self._rearrange(node)
        elif op == "Resize" and (factors := self._factors(node)) is not None:
            self._moved(node, "resize", factors=factors)
        elif op in _ON_CODES and all(self._codes(name) is not None for name in node.input):
            self._on_codes(node)
        else:
            self._other(node)

    def _fold(self, node: onnx.NodeProto) -> _Constant:
        """Compute a node of constants: the few forms that weights are spelt in."""
        values = [self.constants[name] for name in node.input if name]
        first = values[0]
        if node.op_type == "Cast":
            return first
        if node.op_type == "Mul":
            product = first.value * values[1].value
            if np.issubdtype(values[1].value.dtype, np.integer):
                return _Constant(product, factored=first.value)
            # Codes times a scale of each channel, for an operator on floats.
            scale = values[1].value.astype(np.float32)
            floats = first.value.astype(np.float32) * scale
            return _Constant(floats, codes=first.value, scale=scale.reshape(-1))
        if node.op_type == "DequantizeLinear":
            if len(values) > 2 and values[2].value.any():
                raise InputError(f"{node.output[0]}: weights with a zero point cannot be packed")
            scale = values[1].value.astype(np.float32).reshape(-1)
            column = scale.reshape(-1, *[1] * (first.value.ndim - 1)) if scale.size > 1 else scale
            return _Constant(
                first.value.astype(np.float32) * column,
                codes=first.value,
                scale=scale,
                factored=first.factored,
            )
        if node.op_type == "Transpose":
            # Of a linear layer's weights; what it holds stays (out, in).
            return _Constant(
                first.value.T, codes=first.codes, scale=first.scale, factored=first.factored
            )
        raise InputError(f"{node.op_type} of constants ({node.output[0]}) cannot be packed")

    def _quantize(self, node: onnx.NodeProto) -> None:
        source, out = node.input[0], node.output[0]
        scale, zero = (self.constants[name].value for name in node.input[1:3])
        if scale.size != 1:
            raise InputError(f"{out}: activations with a scale per channel cannot be packed")
        grid = {
            "scale": float(np.float32(scale.item())),
            "zero_point": int(zero.item()),
            "bits": 16 if zero.dtype == np.uint16 else 8,
        }
        if zero.dtype not in (np.uint8, np.uint16):
            raise InputError(f"{out}: activations of {zero.dtype} cannot be packed; use uint8")
        pending = self.open.get(source)
        if pending is not None and len(self.users[source]) == 1:
            # The operation gives codes at once.
            first = self.grids.get(pending["inputs"][0])
            if pending["op"] in ("max_pool", "concat") and first != grid:
                self.grids[pending["output"]] = first or grid
                self._emit("requantize", [pending["output"]], out)
            else:
                pending["output"] = out
        elif source in self.dequantized:
            self._emit("requantize", [self.dequantized[source]], out)
        else:
            self._emit("quantize", [self._float(source)], out)
        self.grids[out] = grid
        self.names[out] = out

    def _narrow(self, node: onnx.NodeProto) -> None:
        """Cut 8-bit codes to fewer bits: a Clip that follows a QuantizeLinear."""
        name, out = self.names[node.input[0]], node.output[0]
        top = int(self.constants[node.input[2]].value.item())
        bits = (top + 1).bit_length() - 1
        if top + 1 != 2**bits or (node.input[1] and self.constants[node.input[1]].value.item()):
            raise InputError(f"{out}: codes are clipped to a range that is not of whole bits")
        if len(self.users[node.input[0]]) != 1:
            raise InputError(f"{out}: codes are used both clipped and unclipped")
        self.grids[name]["bits"] = bits
        self.names[out] = name

    def _layer(self, node: onnx.NodeProto) -> None:
        attributes = attributes_of(node)
        if node.op_type == "Gemm" and (
            not attributes.get("transB") or attributes.get("alpha", 1) != 1
        ):
            raise InputError(f"{node.output[0]}: only Gemm with transB=1 can be packed")
        weight = self.constants.get(node.input[1])
        if weight is None:
            self._other(node)  # a product of two activations
            return
        name = node.name or node.output[0]
        bias_name = node.input[2] if len(node.input) > 2 else ""
        out = node.output[0]
        absorbed = ""
        if node.op_type == "MatMul":
            users = self.users[out]
            if len(users) == 1 and users[0].op_type == "Add":
                added = next((i for i in users[0].input if i != out), out)
                if added in self.constants and self.constants[added].value.ndim == 1:
                    bias_name, absorbed = added, users[0].output[0]
        bias = self.constants[bias_name] if bias_name else None
        codes = self._codes(node.input[0])
        packed = self._weights(node, name, weight, bias, integer=codes is not None)
        entry: dict[str, Any] = {"weights": packed}
        if node.op_type == "Conv":
            rank = len(packed["shape"]) - 2
            entry |= {
                "kernel": packed["shape"][2:],
                "strides": list(attributes.get("strides", [1] * rank)),
                "pads": list(attributes.get("pads", [0] * 2 * rank)),
                "dilations": list(attributes.get("dilations", [1] * rank)),
                "groups": int(attributes.get("group", 1)),
            }
        integer = packed["fill"] is not None
        source = codes if integer and codes is not None else self._float(node.input[0])
        op = "conv" if node.op_type == "Conv" else "linear"
        self._emit(op, [source], out, layer=name, **entry)
        self.names[out] = out
        if integer:
            self.open[out] = self.nodes[-1]
        if absorbed:
            self.absorbed[absorbed] = out

    def _weights(
        self,
        node: onnx.NodeProto,
        name: str,
        weight: _Constant,
        bias: _Constant | None,
        *,
        integer: bool,
    ) -> dict[str, Any]:
        if weight.codes is None:
            value = weight.value.T if node.op_type == "MatMul" else weight.value
            self.tensors[f"{name}.weight"] = np.ascontiguousarray(value, np.float32)
            return {
                "shape": list(value.shape),
                "weight": f"{name}.weight",
                "bias": self._float_bias(name, bias, len(value)),
                "fill": None,
            }
        codes = weight.codes if weight.factored is None else weight.factored
        out = len(codes)
        assert weight.scale is not None
        scale = np.broadcast_to(weight.scale, (out,)).astype(np.float32)
        bits = nominal_bits(node, codes)
        integer = integer and (bias is None or bias.codes is not None)
        fill = 0
        if integer:
            assert weight.codes is not None
            factored = weight.factored is not None
            codes, fill = unfilled(codes, weight.codes, bits, name, factored=factored)
        encoding = Encoding.for_codes(codes, bits, name=name)
        self.tensors[f"{name}.codes"] = pack_codes(codes, encoding)
        self.tensors[f"{name}.scale"] = np.ascontiguousarray(scale)
        if integer:
            known = np.zeros(out) if bias is None or bias.codes is None else bias.codes
            self.tensors[f"{name}.bias"] = known.astype(np.int32)
            bias_name = f"{name}.bias"
        else:
            bias_name = self._float_bias(name, bias, out)
        return {
            "shape": list(codes.shape),
            "codes": f"{name}.codes",
            "bits": encoding.bits,
            "low": encoding.low,
            "stride": encoding.stride,
            "scale": f"{name}.scale",
            "bias": bias_name,
            "fill": fill if integer else None,
        }

    def _float_bias(self, name: str, bias: _Constant | None, out: int) -> str:
        value = np.zeros(out) if bias is None else bias.value
        self.tensors[f"{name}.bias"] = value.reshape(-1).astype(np.float32)
        return f"{name}.bias"

    def _rearrange(self, node: onnx.NodeProto) -> None:
        op = _REARRANGE[node.op_type]
        entry: dict[str, Any] = {}
        if op == "reshape":
            entry["shape"] = self.constants[node.input[1]].value.tolist()
        elif op == "transpose":
            entry["order"] = list(attributes_of(node)["perm"])
        else:
            entry["axis"] = int(attributes_of(node).get("axis", 1))
        self._moved(node, op, **entry)

    def _factors(self, node: onnx.NodeProto) -> list[int] | None:
        """Return by how much codes of images are enlarged, where each is only repeated."""
        attributes = attributes_of(node)
        form = (attributes.get("mode", "nearest"),
                attributes.get("coordinate_transformation_mode", "half_pixel"),
                attributes.get("nearest_mode", "round_prefer_floor"))  # fmt: skip
        scales = self.constants.get(node.input[2]) if len(node.input) > 2 else None
        if (
            self._codes(node.input[0]) is None
            or form != ("nearest", "asymmetric", "floor")
            or scales is None
            or scales.value.shape != (4,)
        ):
            return None
        factors = scales.value.tolist()
        if factors[:2] != [1, 1] or any(f < 1 or f != int(f) for f in factors):
            return None
        return [int(f) for f in factors[2:]]

    def _moved(self, node: onnx.NodeProto, op: str, **entry: Any) -> None:
        """An operation that moves codes about and leaves their values as they are."""
        source, out = self._codes(node.input[0]), node.output[0]
        assert source is not None
        self._emit(op, [source], out, **entry)
        self.grids[out] = self.grids[source]
        self.names[out] = out
        if node.input[0] in self.dequantized:
            self.dequantized[out] = out

    def _on_codes(self, node: onnx.NodeProto) -> None:
        """An operation that integer runtimes do on codes, if codes are wanted of it."""
        out = node.output[0]
        users = self.users[out]
        fused = len(users) == 1 and users[0].op_type == "QuantizeLinear"
        through_relu = (
            len(users) == 1 and users[0].op_type == "Relu" and self._clamps(users[0].output[0])
        )
        sources = [codes for name in node.input if (codes := self._codes(name)) is not None]
        if not (fused or through_relu) or any(self.grids[s]["bits"] > 8 for s in sources):
            self._other(node)
            return
        if node.op_type in _SAME_GRID and len({str(self.grids[s]) for s in sources}) > 1:
            self._other(node)
            return
        entry: dict[str, Any] = {}
        attributes = attributes_of(node)
        if node.op_type == "MaxPool":
            entry = {ours: list(attributes[key]) for key, ours in _POOL_ATTRIBUTES.items()}
        elif node.op_type == "Concat":
            entry = {"axis": int(attributes["axis"])}
        self._emit(_ON_CODES[node.op_type], sources, out, **entry)
        self.names[out] = out
        self.open[out] = self.nodes[-1]

    def _other(self, node: onnx.NodeProto) -> None:
        """An operator on floats, as it is."""
        constants, inputs = {}, []
        for i, name in enumerate(node.input):
            if name and name in self.constants:
                value = self.constants[name].value
                key = f"constant.{i}"
                if value.dtype == np.float32 and value.size > LARGEST_CONSTANT:
                    # Of an embedding, say: no text of numbers.
                    key = f"{node.output[0]}.{key}"
                    self.tensors[key] = np.ascontiguousarray(value)
                else:
                    constants[key] = value.tolist()
                inputs.append(key)
            else:
                inputs.append(self._float(name) if name else "")
        attributes = attributes_of(node)
        entry = {"attributes": attributes} if attributes else {}
        if constants:
            entry["constants"] = constants
        extra = {"outputs": list(node.output)} if len(node.output) > 1 else {}
        self._emit(node.op_type, inputs, node.output[0], **entry, **extra)
        for name in node.output:
            self.names[name] = name

    # Helpers.

    def _emit(self, op: str, inputs: list[Any], output: str, **entry: Any) -> None:
        self.nodes.append({"op": op, "inputs": list(inputs), "output": output, **entry})

    def _codes(self, name: str) -> str | None:
        """Return the codes behind a tensor, if it is codes or dequantised codes."""
        if name in self.dequantized:
            return self.dequantized[name]
        known = self.names.get(name)
        return known if known in self.grids else None

    def _float(self, name: str) -> str:
        """Return the float tensor behind ``name``, adding what computes it."""
        codes = self.dequantized.get(name)
        if codes is None:
            return self.names[name]
        if codes not in self.floats:
            self.floats[codes] = f"{codes}.float"
            self._emit("dequantize", [codes], self.floats[codes])
        return self.floats[codes]

    def _alias(self, source: str, out: str) -> None:
        tables: tuple[dict[str, Any], ...] = (self.names, self.dequantized, self.open)
        for table in tables:
            if source in table:
                table[out] = table[source]

    def _clamps(self, relu: str) -> bool:
        """Whether all that follows a ReLU is one quantiser whose codes start at zero."""
        users = self.users[relu]
        return (
            len(users) == 1
            and users[0].op_type == "QuantizeLinear"
            and int(self.constants[users[0].input[2]].value.item()) == 0
        )
