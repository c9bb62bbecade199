"""Every space at several bits in every form of export: outputs against the network, or the refusal.

    python -m experiments.kernels.export_matrix

Needs the extras openvino, litert and executorch for all forms; a form whose library is missing is
left as it was. Every pair that is done is kept, so a second call goes on where the first
stopped; ``--again`` starts anew. One network of each space, untrained and the same at all bits,
on 16 random images. A form's outputs are compared with unoptimised execution of the ONNX file,
and that with the torch network it was exported from.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search_spaces.atomic import write_json_atomic
from search_spaces.errors import MissingExtraError, NasError

PAIRS = ((2, 4), (8, 8), (32, 32), (1, 4), (3, 8), (4, 4), (2, 5))
FORMS = ("onnxruntime", "lowbit", "openvino", "litert", "executorch")
IMAGES = 16
COMMAND = "python -m experiments.kernels.export_matrix"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spaces", nargs="+", help="by default all that make networks")
    parser.add_argument("--again", action="store_true", help="forget what was done before")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    from experiments.kernels.bench import RESULTS, machine
    from search_spaces.planned import PlannedSpace
    from search_spaces.spaces.registry import SPACES

    path = RESULTS / "export_matrix.json"
    known = {} if options.again or not path.is_file() else json.loads(path.read_text())
    rows: dict[str, Any] = known.get("spaces", {})
    versions: dict[str, str] = known.get("versions", {})
    planned = [name for name in SPACES if issubclass(SPACES.get(name), PlannedSpace)]
    supernets = {space: made_supernet(space) for space in options.spaces or planned}
    # Conversion to ExecuTorch takes longer than all others together, so it comes last.
    for forms, pair in itertools.product((FORMS[:-1], FORMS[-1:]), PAIRS):
        for space, supernet in supernets.items():
            cell = rows.setdefault(space, {}).setdefault(f"w{pair[0]}a{pair[1]}", {})
            add_cell(cell, supernet, pair, forms, versions)
            document = {
                "machine": machine(),
                "command": COMMAND,
                "seed": 0,
                "images": IMAGES,
                "versions": versions | {"torch": torch.__version__},
                "spaces": rows,
            }
            RESULTS.mkdir(parents=True, exist_ok=True)
            write_json_atomic(path, document)
    return 0


def made_supernet(space: str) -> Any:
    """Return an untrained supernet of a space, its residual branches switched on."""
    import torch

    from search_spaces.spaces.registry import SPACES, build_space
    from supernet.network import Supernet
    from supernet.quantizers.registry import QuantizerScheme

    torch.manual_seed(0)
    preset = {"preset": "8x8"} if "8x8" in getattr(SPACES.get(space), "PRESETS", ()) else {}
    weights, activations = ([*sorted({pair[i] for pair in PAIRS})] for i in (0, 1))
    made = Supernet(
        build_space(
            space, input_channels=1, outputs=5, weight_bits=weights, activation_bits=activations,
            **preset,
        ),
        quantizers=QuantizerScheme(weights={"default": "lsq", 1: "binary"}),
    )  # fmt: skip
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            if key.endswith("gamma"):  # those of residual blocks start at 0
                parameter.copy_(torch.empty_like(parameter).uniform_(0.3, 1.2))
    return made


def add_cell(
    cell: dict[str, Any],
    supernet: Any,
    pair: tuple[int, int],
    forms: Sequence[str],
    versions: dict[str, str],
) -> None:
    """Fill in those of the forms that a cell lacks."""
    import numpy as np
    import torch

    from nas.models.parity import check_optimised, evaluate_onnx
    from search_spaces.bits import set_bits
    from supernet.onnx.export import export_onnx
    from supernet.onnx.packing import pack_onnx
    from supernet.training.subnets import float_plan

    missing = [form for form in forms if form not in cell]
    if "export" in cell and not missing:
        return
    space = supernet.space
    genes = space.genes([space.sample(np.random.default_rng(3))])
    if pair[0] == 32:
        plan = float_plan(space.plan(space.decode(genes)[0]))
    else:
        plan = space.plan(space.decode(set_bits(space, genes, *pair))[0])
    images = torch.randn(IMAGES, *plan.input_shape, generator=torch.Generator().manual_seed(1))
    network = supernet.extract(plan, supernet.statistics(plan, [images])).eval()
    with tempfile.TemporaryDirectory() as folder:
        path, packed = Path(folder) / "model.onnx", Path(folder) / "model.lowbit"
        summary = export_onnx(network, path, reduce_range=True)
        with torch.no_grad():
            logits = network(images).numpy()
        expected = evaluate_onnx(path, [images.numpy()], optimise=False)
        check = check_optimised(path, images.numpy())
        cell["export"] = {
            "against": "torch network; biases and 8-bit weights of the file are whole numbers",
            **parity(expected, logits),
            "optimised_against_unoptimised_passed": check.passed,
            "problems": list(check.problems),
            "float_operators": len(check.float_fallbacks),
            "weights_kib": round(summary.weights_kib, 3),
            "promised_weights_kib": round(plan.weights_kib, 3),
            "size_kib": round(summary.size_kib, 1),
        }
        if pair[0] < 32:
            cell["export"]["packed_kib"] = round(pack_onnx(path, packed).weights_kib, 3)
        for form in missing:
            source = packed if form == "lowbit" and packed.is_file() else path
            found = outcome(form, source, images.numpy(), expected, versions)
            if found is not None:
                cell[form] = found
            print(space.name, pair, form, found, flush=True)


def outcome(
    form: str, path: Path, images: Any, expected: Any, versions: dict[str, str]
) -> dict[str, Any] | None:
    """Return a form's parity and arithmetic, or its refusal; None without its library."""
    from devices.runtime import make_runtime

    try:
        runtime = make_runtime(form, {"batch": len(images)})
        versions[form] = runtime.version
        session = runtime.load(path)
        return {
            **parity(session(images)[0], expected),
            "arithmetic": session.arithmetic(),
        }
    except MissingExtraError:
        return None
    except NasError as error:
        return {"refused": str(error).replace(str(path), path.name)}


def parity(output: Any, reference: Any) -> dict[str, Any]:
    """Return the error of logits over their norm, and the share of equal predictions."""
    import numpy as np

    error = np.linalg.norm(output - reference) / np.linalg.norm(reference)
    return {
        "relative_error": float(f"{error:.3g}"),
        "agreement": float(np.mean(output.argmax(1) == reference.argmax(1))),
        "finite": bool(np.isfinite(output).all()),
    }


if __name__ == "__main__":
    sys.exit(main())
