"""LiteRT files in kernels other than XNNPACK: what operators round otherwise, what that does.

    python -m experiments.deliver.litert_kernels --run RUN

LiteRT's own kernels and those of TensorFlow Lite Micro multiply a layer's sums by a fixed-point
number and round twice: to a whole number, then without its last bits. For each operator of a file
the ONNX reference is given the very codes that the operator got, so that what differs is its own.
The networks are those of the export matrix, with random weights, and the front of a run of the
demo, which is trained and is asked about its validation images.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from devices.runtime import make_runtime, random_inputs
from devices.runtimes.agreement import SEEDS, Agreement
from devices.runtimes.conversion import ConvertingRuntime
from devices.runtimes.onnxruntime import OnnxRuntime
from devices.runtimes.tflite.file import TURNED
from experiments.deliver.c_images import NETWORKS, network
from experiments.deliver.matrix import BITS
from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

RESULT = Path(__file__).parents[1] / "results" / "deliver" / "litert_kernels.json"
COMMAND = "python -m experiments.deliver.litert_kernels --run RUN"
AGREEMENT = 0.99
"""Share of the validation images of trained networks that all kernels give the same class."""


def file_of(model: Path) -> Path:
    """Return the LiteRT file that ``nas export`` writes of an ONNX file."""
    runtime = make_runtime("litert", {"integers_only": True})
    assert isinstance(runtime, ConvertingRuntime)
    return runtime.converted(model) / runtime.native


def interpreter(file: Path, kernels: str) -> Any:
    """Return an interpreter with all its tensors kept."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = {
        "XNNPACK": OpResolverType.AUTO,
        "LiteRT's own": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "LiteRT's reference": OpResolverType.BUILTIN_REF,
    }[kernels]
    made = Interpreter(
        model_path=str(file),
        experimental_op_resolver_type=kind,
        experimental_preserve_all_tensors=kernels != "XNNPACK",
    )
    made.allocate_tensors()
    return made


def outputs(file: Path, kernels: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of one file for inputs of the ONNX, (1, channels, ...) each."""
    if kernels == "TensorFlow Lite Micro":
        from tflite_micro import runtime

        micro = runtime.Interpreter.from_file(str(file))
        turned = interpreter(file, "XNNPACK").get_input_details()[0]["name"].endswith(TURNED)
        found = []
        for values in inputs:
            micro.set_input(np.ascontiguousarray(_as_stored(values, turned)), 0)
            micro.invoke()
            found.append(micro.get_output(0).copy())
        return found
    made = interpreter(file, kernels)
    found = []
    for values in inputs:
        _invoke(made, values)
        found.append(made.get_tensor(made.get_output_details()[0]["index"]).copy())
    return found


def _as_stored(values: np.ndarray, turned: bool) -> np.ndarray:
    return np.moveaxis(values, 1, -1) if turned else values


def _invoke(made: Any, values: np.ndarray) -> None:
    (detail,) = made.get_input_details()
    stored = _as_stored(values, detail["name"].endswith(TURNED))
    made.set_tensor(detail["index"], np.ascontiguousarray(stored))
    made.invoke()


def operators(model: Path, file: Path, values: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield kind, share of other codes and largest difference of each operator of LiteRT's own."""
    import onnx

    made = interpreter(file, "LiteRT's own")
    _invoke(made, values)
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(model))).graph
    shapes = {
        item.name: tuple(d.dim_value or 1 for d in item.type.tensor_type.shape.dim)
        for item in (*graph.value_info, *graph.input, *graph.output)
    }
    details = {tensor["index"]: tensor for tensor in made.get_tensor_details()}

    (source,) = graph.input
    known = {source.name: values}
    for op in made._get_ops_details():
        tensor = details[op["outputs"][0]]
        name = tensor["name"]
        if name not in shapes or tensor["dtype"] != np.int8:
            continue  # only the file has it, and the next operator shows what it holds; or floats
        stored = (made.get_tensor(tensor["index"]).astype(np.int16) + 128).astype(np.uint8)
        expected = _computed(graph, name, known)
        # Channels last or not, which the sizes alone do not always tell: the other way all differs.
        ways = [stored, np.moveaxis(stored, -1, 1)] if stored.ndim == 4 else [stored]
        ways = [way.reshape(shapes[name]) for way in ways if way.size == expected.size]
        found = min(ways, key=lambda way: int((way != expected).sum()))
        difference = np.abs(found.astype(np.int16) - expected)
        yield {
            "operator": op["op_name"],
            "share": float((difference != 0).mean()),
            "largest": int(difference.max()),
        }
        known[name] = np.ascontiguousarray(found)


def _computed(graph: Any, name: str, known: dict[str, np.ndarray]) -> np.ndarray:
    """Return what the ONNX graph makes of tensors that are known."""
    import onnx
    import onnxruntime
    from onnx import helper

    makers = {output: node for node in graph.node for output in node.output}
    wanted = [name]
    reached: set[str] = set()
    used: set[str] = set()
    while wanted:
        tensor = wanted.pop()
        if tensor in known:
            used.add(tensor)
        elif tensor in makers and tensor not in reached:
            reached.add(tensor)
            wanted += [item for item in makers[tensor].input if item]

    def value(item: str, like: np.ndarray) -> Any:
        return helper.make_tensor_value_info(
            item, helper.np_dtype_to_tensor_dtype(like.dtype), like.shape
        )

    part = helper.make_graph(
        [node for node in graph.node if reached.intersection(node.output)],
        "part",
        [value(item, known[item]) for item in sorted(used)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None)],
        list(graph.initializer),
    )
    model = helper.make_model(part, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {item: known[item] for item in used})
    return np.asarray(found)


def row(model: Path, inputs: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the figures of one network."""
    file = file_of(model)
    reference = OnnxRuntime(graph_optimization="off").load(model)
    expected = [np.array(reference(values)[0]) for values in inputs]
    kinds = ["XNNPACK", "LiteRT's own", "LiteRT's reference", "TensorFlow Lite Micro"]
    found = {
        kernels: vars(Agreement.of(outputs(file, kernels, inputs), expected)) for kernels in kinds
    }
    every = list(operators(model, file, inputs[0]))
    return {
        "inputs": len(inputs),
        "kernels": found,
        "operators": len(every),
        "largest_difference_of_an_operator": max(one["largest"] for one in every),
        "largest_share_of_other_codes": max(one["share"] for one in every),
    }


def trained(run: Path) -> Iterator[tuple[str, Path, list[np.ndarray]]]:
    """Yield id, file and validation images of each network of a run's front."""
    from nas.data.splits import load_splits
    from nas.job.demo import demo_job

    job = demo_job()
    splits = load_splits(job.data, job.seed)
    images = [x.numpy() for x, _ in splits.evaluation_batches(splits.validation, batch_size=1)]
    for entry in json.loads((run / "results.json").read_text())["front"]:
        yield entry["id"], run / entry["model"], images


def main() -> None:
    """Compare, write the result and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a finished run of nas demo")
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {"random weights": {}, "trained": {}}
    for name, config in NETWORKS.items():
        for bits in BITS:
            with tempfile.TemporaryDirectory() as folder:
                network(config, bits, Path(folder), 0)
                path = Path(folder) / "model.onnx"
                specs = OnnxRuntime(graph_optimization="off").load(path).inputs
                inputs = [random_inputs(specs, seed)[0] for seed in range(SEEDS)]
                label = f"{name} W{bits[0]}A{bits[1]}"
                rows["random weights"][label] = row(path, inputs)
                print(label, json.dumps(rows["random weights"][label]), flush=True)
    for identity, path, images in trained(options.run):
        rows["trained"][identity] = row(path, images)
        print(identity, json.dumps(rows["trained"][identity]), flush=True)
    packages = ("ai-edge-litert", "tflite-micro", "onnxruntime")
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    versions |= {package: version(package) for package in packages}
    write_json_atomic(RESULT, {"command": COMMAND, "versions": versions, "rows": rows})
    record(rows)


def record(rows: dict[str, dict[str, Any]]) -> None:
    """Enter the claim."""

    def worst(kind: str, kernels: str) -> dict[str, float]:
        found = [one["kernels"][kernels] for one in rows[kind].values()]
        return {
            "relative error": round(max(one["relative_error"] for one in found), 4),
            "error of the range": round(max(one["range_error"] for one in found), 4),
            "same largest output": round(min(one["same_largest"] for one in found), 4),
        }

    every = [one for part in rows.values() for one in part.values()]
    value = {
        "largest difference of an operator, codes": max(
            one["largest_difference_of_an_operator"] for one in every
        ),
        **{
            kind: {kernels: worst(kind, kernels) for kernels in every[0]["kernels"]}
            for kind in rows
        },
    }
    met = value["largest difference of an operator, codes"] <= 1 and all(
        one["same largest output"] >= AGREEMENT for one in value["trained"].values()
    )
    record_claim(
        "deliver.litert_kernels",
        value,
        f"each operator within one code; trained networks: >= {AGREEMENT:.0%} the same class",
        met,
        "experiments/results/deliver/litert_kernels.json",
        COMMAND,
    )


if __name__ == "__main__":
    main()
