"""From an exported integer ONNX to a low-bit model file with weights at their own bit-widths.

The file holds the graph in which quantisation is fused into the operations around it, as an
integer runtime executes it, see docs/lowbit-format.md. ONNX has no 3-bit integer and stores
codes of 5 to 8 bits as bytes; the packed tensors take what the search promised.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.decoders import Region, decoder_regions
from search_spaces.model_files.fills import unfilled
from search_spaces.model_files.forms import plain_pool, repeats, rounded_away
from search_spaces.model_files.graph import PRODUCTS, Codes, Graph, Node, graph_of
from search_spaces.model_files.moves import (
    MOVES,
    move_entry,
    quantised_first,
    with_shuffles,
    without_pads,
)
from search_spaces.model_files.packed_model import (
    Encoding,
    PackedModel,
    fill_factors,
    pack_codes,
    write_packed_model,
)

if TYPE_CHECKING:
    import onnx

WEIGHT_BITS = "weight_bits"
"""Note of a node's nominal weight bits, written by ``supernet.onnx.export``."""

LARGEST_CONSTANT = 1024
"""Floats of a constant that stands in the graph; larger ones are tensors."""

_REARRANGE = {"Flatten": "flatten", "Reshape": "reshape", "Transpose": "transpose"}
_ON_CODES = {
    "Add": "add",
    "GlobalAveragePool": "global_average_pool",
    "AveragePool": "average_pool",
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
    return pack_graph(graph_of(model))


def pack_graph(graph: Graph) -> PackedModel:
    """Return a graph as a packed model, see :func:`pack_onnx`."""
    return _Packer(graph).run()


class _Packer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
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
        """Pack the whole graph."""
        regions = decoder_regions(self.graph)
        if not regions:
            self.graph = quantised_first(self.graph)
        inputs = self.graph.inputs
        if not regions and (len(inputs) != 1 or len(self.graph.outputs) != 1):
            raise InputError("only networks with one input and one output can be packed")
        if regions:
            # Keys and values are the runtime's own.
            inputs = tuple(name for name in inputs if name in regions[0].inputs)
        described = [
            {"name": name, "shape": [n or 0 for n in self.graph.shapes[name]][1:]}
            for name in inputs
        ]
        self.names.update({name: name for name in inputs})
        self._nodes(regions)
        output = self._float(self.graph.outputs[0])
        self.nodes = with_shuffles(without_pads(self.nodes))
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
        hidden = {name for index in inside for name in self.graph.nodes[index].outputs}
        hidden -= {region.output for region in regions}
        made = {region.output: region for region in regions}
        for index, node in enumerate(self.graph.nodes):
            region = made.get(node.output)
            if region is not None:
                self._region(region)
            elif index not in inside and not hidden.intersection(node.inputs):
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

    # What a node is.

    def _node(self, node: Node) -> None:
        op, out = node.op, node.output
        if out in self.absorbed:
            self._alias(self.absorbed[out], out)
        elif self.graph.is_constant(out):
            return
        elif all(not name or self.graph.is_constant(name) for name in node.inputs):
            raise InputError(f"{op} of constants ({out}) cannot be packed")
        elif op == "QuantizeLinear":
            self._quantize(node)
        elif op == "DequantizeLinear" and self.names[node.input(0)] not in self.grids:
            # Codes that a float operation moved about (nearest neighbours): values by now.
            self._alias(node.input(0), out)
        elif op == "DequantizeLinear":
            self.dequantized[out] = self.names[node.input(0)]
        elif op == "Clip" and self.names.get(node.input(0)) in self.grids:
            self._narrow(node)
        elif op in PRODUCTS:
            self._layer(node)
        elif op == "Identity" or (
            op in ("Relu", "Clip") and node.input(0) in self.open and self._clamps(out)
        ):
            self._alias(node.input(0), out)
        elif op in _REARRANGE and self._codes(node.input(0)) is not None:
            self._rearrange(node)
        elif op in MOVES and self._codes(node.input(0)) is not None and self._moves(node):
            pass
        elif op == "Concat" and all(map(self._only_codes, node.inputs)):
            self._joined(node)
        elif (
            op == "Resize"
            and self._codes(node.input(0)) is not None
            and (factors := repeats(node, self.graph.constants)) is not None
        ):
            self._moved(node, "resize", factors=factors)
        elif op in _ON_CODES and all(self._codes(name) is not None for name in node.inputs):
            self._on_codes(node)
        else:
            self._other(node)

    def _quantize(self, node: Node) -> None:
        source, out = node.input(0), node.output
        found = self.graph.grids.get(out)
        if found is None:
            raise InputError(f"{out}: activations with a computed scale cannot be packed")
        if found.scale.size != 1:
            raise InputError(f"{out}: activations with a scale per channel cannot be packed")
        if found.kind not in ("uint8", "uint16"):
            raise InputError(f"{out}: activations of {found.kind} cannot be packed; use uint8")
        grid = found.described()
        pending = self.open.get(source)
        if pending is not None and len(self.graph.users[source]) == 1:
            # The operation gives codes at once.
            first = self.grids.get(pending["inputs"][0])
            if pending["op"] in ("max_pool", "concat") and first != grid:
                self.grids[pending["output"]] = first or grid
                self._emit("requantize", [pending["output"]], out)
            else:
                pending["output"] = out
        elif source in self.dequantized and self._same(self.dequantized[source], out, grid):
            self.names[out] = self.dequantized[source]
            return
        elif source in self.dequantized:
            self._emit("requantize", [self.dequantized[source]], out)
        else:
            self._emit("quantize", [self._float(source)], out)
        self.grids[out] = grid
        self.names[out] = out

    def _narrow(self, node: Node) -> None:
        """Cut 8-bit codes to fewer bits: a Clip that follows a QuantizeLinear."""
        name, out = self.names[node.input(0)], node.output
        top = int(self.graph.constants[node.input(2)].item())
        bits = (top + 1).bit_length() - 1
        low = node.input(1)
        if top + 1 != 2**bits or (low and self.graph.constants[low].item()):
            raise InputError(f"{out}: codes are clipped to a range that is not of whole bits")
        if len(self.graph.users[node.input(0)]) != 1:
            raise InputError(f"{out}: codes are used both clipped and unclipped")
        self.grids[name]["bits"] = bits
        self.names[out] = name

    def _layer(self, node: Node) -> None:
        attributes, name, out = node.attributes, node.name or node.output, node.output
        if node.op == "Gemm" and (not attributes.get("transB") or attributes.get("alpha", 1) != 1):
            raise InputError(f"{out}: only Gemm with transB=1 can be packed")
        if not self.graph.is_constant(node.input(1)):
            self._other(node)  # a product of two activations
            return
        bias_name, absorbed = node.input(2), ""
        if node.op == "MatMul":
            users = self.graph.users.get(out, ())
            if len(users) == 1 and users[0].op == "Add":
                added = next((i for i in users[0].inputs if i != out), out)
                value = self.graph.constant(added)
                if value is not None and value.ndim == 1:
                    bias_name, absorbed = added, users[0].output
        if bias_name and not self.graph.is_constant(bias_name):
            raise InputError(f"{out}: a layer with a computed bias cannot be packed")
        codes = self._codes(node.input(0))
        packed = self._weights(node, name, bias_name, integer=codes is not None)
        entry: dict[str, Any] = {"weights": packed}
        if node.op == "Conv":
            rank = len(packed["shape"]) - 2
            entry |= {
                "kernel": packed["shape"][2:],
                "strides": list(attributes.get("strides", [1] * rank)),
                "pads": list(attributes.get("pads", [0] * 2 * rank)),
                "dilations": list(attributes.get("dilations", [1] * rank)),
                "groups": int(attributes.get("group", 1)),
            }
        integer = packed["fill"] is not None
        source = codes if integer and codes is not None else self._float(node.input(0))
        op = "conv" if node.op == "Conv" else "linear"
        self._emit(op, [source], out, layer=name, **entry)
        self.names[out] = out
        if integer:
            self.open[out] = self.nodes[-1]
        if absorbed:
            self.absorbed[absorbed] = out

    def _weights(self, node: Node, name: str, bias_name: str, *, integer: bool) -> dict[str, Any]:
        source = node.input(1)
        weight, bias = self._stored(source), self._stored(bias_name)
        if weight is None:
            if source in self.graph.computed:
                raise InputError(f"{self.graph.computed[source]} cannot be packed")
            value = self.graph.constants[source]
            value = value.T if node.op == "MatMul" else value
            self.tensors[f"{name}.weight"] = np.ascontiguousarray(value, np.float32)
            return {
                "shape": list(value.shape),
                "weight": f"{name}.weight",
                "bias": self._float_bias(name, bias_name, len(value)),
                "fill": None,
            }
        if node.op == "MatMul":
            weight = weight.transposed([1, 0])
        if weight.scale.size > 1 and weight.axis:
            raise InputError(f"{name}: weights with a scale for each input cannot be packed")
        codes = weight.codes if weight.factored is None else weight.factored
        out = len(codes)
        scale = np.broadcast_to(weight.scale, (out,)).astype(np.float32)
        bits = nominal_bits(node, codes)
        integer = integer and (not bias_name or bias is not None)
        factored = weight.factored is not None
        codes, fill = unfilled(codes, weight.codes, bits, name, factored=factored)
        if not integer:
            # A layer on floats has no factors; its scales are those of the bare codes.
            scale = scale * fill_factors(codes, fill).astype(np.float32)
        encoding = Encoding.for_codes(codes, bits, name=name)
        self.tensors[f"{name}.codes"] = pack_codes(codes, encoding)
        self.tensors[f"{name}.scale"] = np.ascontiguousarray(scale)
        if integer:
            known = np.zeros(out) if bias is None else bias.codes
            self.tensors[f"{name}.bias"] = known.astype(np.int32)
            bias_name = f"{name}.bias"
        else:
            bias_name = self._float_bias(name, bias_name, out)
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

    def _stored(self, name: str) -> Codes | None:
        """Return the integers that a constant is stored as; None of one that is no such."""
        found = self.graph.codes.get(name)
        if found is None:
            return None
        if found.zero.any():
            raise InputError(f"{name}: weights with a zero point cannot be packed")
        if not found.symmetric:
            form = "with a scale for each block" if found.block else f"of {found.kind}"
            raise InputError(f"{name}: weights {form} cannot be packed")
        return found

    def _float_bias(self, name: str, bias_name: str, out: int) -> str:
        bias = self.graph.constant(bias_name)
        value = np.zeros(out) if bias is None else bias
        self.tensors[f"{name}.bias"] = value.reshape(-1).astype(np.float32)
        return f"{name}.bias"

    def _rearrange(self, node: Node) -> None:
        op = _REARRANGE[node.op]
        entry: dict[str, Any] = {}
        if op == "reshape":
            entry["shape"] = self.graph.constants[node.input(1)].tolist()
        elif op == "transpose":
            entry["order"] = list(node.attributes["perm"])
        else:
            entry["axis"] = int(node.attributes.get("axis", 1))
        self._moved(node, op, **entry)

    def _moved(self, node: Node, op: str, **entry: Any) -> None:
        """An operation that moves codes about and leaves their values as they are."""
        source, out = self._codes(node.input(0)), node.output
        assert source is not None
        self._emit(op, [source], out, **entry)
        self.grids[out] = self.grids[source]
        self.names[out] = out
        if node.input(0) in self.dequantized:
            self.dequantized[out] = out

    def _moves(self, node: Node) -> bool:
        entry = move_entry(node, self.graph.constants)
        if entry is not None:
            self._moved(node, **entry)
        return entry is not None

    def _joined(self, node: Node) -> None:
        """Codes of one grid beside each other; a quantiser was put before each part."""
        out, parts = node.output, [self.names[name] for name in node.inputs]
        self._emit("concat", parts, out, axis=int(node.attributes["axis"]))
        self.grids[out] = self.grids[parts[0]]
        self.names[out] = out

    def _on_codes(self, node: Node) -> None:
        """An operation that integer runtimes do on codes, if codes are wanted of it."""
        out = node.output
        users = self.graph.users.get(out, ())
        fused = len(users) == 1 and users[0].op == "QuantizeLinear"
        through_relu = (
            len(users) == 1 and users[0].op in ("Relu", "Clip") and self._clamps(users[0].output)
        )
        sources = [codes for name in node.inputs if (codes := self._codes(name)) is not None]
        if not (fused or through_relu) or any(self.grids[s]["bits"] > 8 for s in sources):
            self._other(node)
            return
        if node.op in ("MaxPool", "AveragePool") and not plain_pool(node):
            self._other(node)
            return
        if node.op in _SAME_GRID and len({str(self.grids[s]) for s in sources}) > 1:
            self._other(node)
            return
        entry: dict[str, Any] = {}
        attributes = node.attributes
        if node.op in ("MaxPool", "AveragePool"):
            rank = len(attributes["kernel_shape"])
            plain = {"kernel_shape": None, "strides": [1] * rank, "pads": [0] * 2 * rank}
            entry = {
                ours: list(attributes.get(key, plain[key]))
                for key, ours in _POOL_ATTRIBUTES.items()
            }
        elif node.op == "Concat":
            entry = {"axis": int(attributes["axis"])}
        self._emit(_ON_CODES[node.op], sources, out, **entry)
        self.names[out] = out
        self.open[out] = self.nodes[-1]

    def _other(self, node: Node) -> None:
        """An operator on floats, as it is."""
        constants, inputs = {}, []
        for i, name in enumerate(node.inputs):
            value = self.graph.constant(name)
            if value is not None:
                key = f"constant.{i}"
                if value.dtype == np.float32 and value.size > LARGEST_CONSTANT:
                    # Of an embedding, say: no text of numbers.
                    key = f"{node.output}.{key}"
                    self.tensors[key] = np.ascontiguousarray(value)
                else:
                    constants[key] = value.tolist()
                inputs.append(key)
            else:
                inputs.append(self._float(name) if name else "")
        entry: dict[str, Any] = {"attributes": dict(node.attributes)} if node.attributes else {}
        if constants:
            entry["constants"] = constants
        extra = {"outputs": list(node.outputs)} if len(node.outputs) > 1 else {}
        self._emit(node.op, inputs, node.output, **entry, **extra)
        for name in node.outputs:
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

    def _only_codes(self, name: str) -> bool:
        return name not in self.dequantized and self.names.get(name) in self.grids

    def _same(self, codes: str, out: str, grid: dict[str, Any]) -> bool:
        """Whether quantising ``codes`` once more changes none, nor cuts them to fewer bits."""
        cut = any(user.op == "Clip" for user in self.graph.users.get(out, ()))
        return self.grids[codes] == grid and not cut

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

    def _clamps(self, name: str) -> bool:
        """Whether all that follows a ReLU or a Clip is one quantiser that does the same."""
        users = self.graph.users.get(name, ())
        if len(users) != 1 or users[0].op != "QuantizeLinear":
            return False
        grid, maker = self.graph.grids.get(users[0].output), self.graph.makers[name]
        if grid is None or maker.op == "Relu":
            return grid is not None and not grid.zero.any()
        after = self.graph.users.get(users[0].output, ())
        cut = after[0] if len(after) == 1 and after[0].op == "Clip" else None
        return rounded_away(maker, grid, cut, self.graph.constants)


def nominal_bits(node: Node, codes: np.ndarray) -> int:
    """Return the bits that a node's weights were made with: its note, or what its codes take."""
    if WEIGHT_BITS in node.notes:
        return int(node.notes[WEIGHT_BITS])
    size = int(np.abs(codes.astype(np.int64) + (codes < 0)).max()) if codes.size else 0
    return size.bit_length() + 1
