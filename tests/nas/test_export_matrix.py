"""Every space at every pair of bits, in every form it is exported to: outputs, types and sizes."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from devices.lowbit.build import find_compiler
from devices.runtime import make_runtime
from nas.models.parity import check_optimised, evaluate_onnx
from search_spaces.bits import set_bits
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.planned import PlannedSpace
from search_spaces.spaces.registry import SPACES, build_space
from supernet.network import Supernet
from supernet.onnx.export import export_onnx, fold
from supernet.onnx.packing import pack_onnx
from supernet.plain import PlainNetwork
from supernet.quantizers.registry import QuantizerScheme
from supernet.training.subnets import float_plan

pytestmark = pytest.mark.long

SPACE_NAMES = [name for name in SPACES if issubclass(SPACES.get(name), PlannedSpace)]
WEIGHT_BITS, ACTIVATION_BITS = (1, 2, 3, 4, 8), (2, 4, 5, 8)
PAIRS = [(w, a) for w in WEIGHT_BITS for a in ACTIVATION_BITS if w <= a]
SCHEMES = {
    "lsq": QuantizerScheme(weights={"default": "lsq", 1: "binary"}),
    "ternary": QuantizerScheme(weights={"default": "lsq", 1: "binary", 2: "twn"}),
}
RUNTIMES = {"openvino": "openvino", "litert": "ai_edge_litert", "executorch": "executorch"}
"""Runtimes with formats of their own -> the library they need."""

FLOAT_OPERATORS = {
    "vit": {"Add", "LayerNormalization", "Softmax", "Gelu", "Mul", "ReduceMean"},
    "hybrid": {"Mul", "Softmax"},
    # Tokens are looked up by their rounded numbers.
    "decoder": {
        "Add",
        "Gather",
        "Gelu",
        "LayerNormalization",
        "MatMul",
        "Mul",
        "ReduceMean",
        "Round",
        "Softmax",
    },
}
"""What has no integer kernel, by space."""

FLOAT_OPERATORS["encoder_decoder"] = FLOAT_OPERATORS["decoder"] | {"Sub"}

REFUSED = {
    ("decoder", "litert"): "operator Round",
    ("encoder_decoder", "litert"): "operator Round",
}
"""Space and runtime -> why the one does not run in the other."""


@lru_cache
def supernet(space: str, scheme: str) -> Supernet:
    torch.manual_seed(0)
    preset = {"preset": "8x8"} if "8x8" in getattr(SPACES.get(space), "PRESETS", ()) else {}
    bits = {"weight_bits": [*WEIGHT_BITS, 32], "activation_bits": [*ACTIVATION_BITS, 32]}
    made = Supernet(
        build_space(space, input_channels=1, outputs=5, **preset, **bits),
        quantizers=SCHEMES[scheme],
    )
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            if key.endswith("gamma"):  # those of residual blocks start at 0
                parameter.copy_(torch.empty_like(parameter).uniform_(0.3, 1.2))
    return made


def network(space: str, scheme: str, weight_bits: int, activation_bits: int):
    """Return a network with its searched layers at these bits, and images."""
    made = supernet(space, scheme)
    genes = made.space.genes([made.space.sample(np.random.default_rng(3))])
    genes = set_bits(made.space, genes, weight_bits, activation_bits)
    plan = made.space.plan(made.space.decode(genes)[0])
    return extracted(made, plan)


def extracted(made: Supernet, plan):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, *plan.input_shape, generator=generator)
    if made.space.name in ("decoder", "encoder_decoder"):  # takes the numbers of tokens
        images = torch.randint(5, images.shape, generator=generator).float()
    return made.extract(plan, made.statistics(plan, [images])).eval(), images.numpy()


def relative(output: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(output - reference) / np.linalg.norm(reference))


def run(runtime: str, path: Path, images: np.ndarray, **parameters) -> np.ndarray:
    session = make_runtime(runtime, {"batch": len(images), **parameters}).load(path)
    return session(images)[0]


def run_each(runtime: str, path: Path, images: np.ndarray, **parameters) -> np.ndarray:
    session = make_runtime(runtime, {"batch": 1, **parameters}).load(path)
    return np.concatenate([session(image[None])[0].copy() for image in images])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"w{p[0]}a{p[1]}")
@pytest.mark.parametrize("space", SPACE_NAMES)
def test_quantised_onnx_is_sound_and_as_small_as_promised(space, pair, tmp_path):
    plain, images = network(space, "lsq", *pair)
    path = tmp_path / "model.onnx"
    summary = export_onnx(plain, path, reduce_range=True)
    check = check_optimised(path, images)
    assert check.passed, check.problems
    kinds = {check_kind.split("_token")[0] for check_kind in check.operators}
    assert any(kind.startswith(("QLinearConv", "QGemm", "MatMulInteger")) for kind in kinds)
    types = {node.name: node.op_type for node in onnx.load(path).graph.node}
    assert {types[name] for name in check.float_fallbacks} <= FLOAT_OPERATORS.get(space, set())
    assert packed_widths(path) >= ({f"packed{2 if pair[0] <= 2 else 4}"} if pair[0] <= 4 else set())
    packed = pack_onnx(path, tmp_path / "model.lowbit")
    promised = plain.plan.weights_kib
    # Masks of an encoder-decoder's attention are constants of its packed file.
    more = 0.15 if space == "encoder_decoder" else 0.02
    assert packed.weights_kib == pytest.approx(promised, rel=more)
    assert summary.weights_kib == pytest.approx(promised, rel=0.02)
    assert summary.size_kib == path.stat().st_size / 1024
    with torch.no_grad():
        reference = with_stored_parameters(plain, path)(torch.from_numpy(images)).numpy()
    output = evaluate_onnx(path, [images], optimise=False)
    errors = [relative(*rows) for rows in zip(output, reference, strict=True)]
    # A rounding may fall the other way in an image: with few bits that is a large step.
    assert np.median(errors) < 1e-4
    assert relative(output, reference) < 0.1


def with_stored_parameters(plain: PlainNetwork, path: Path) -> PlainNetwork:
    """Return the network with the whole-numbered biases and 8-bit weights of the file.

    Untrained networks of few bits turn a bias rounded by a thousandth into other codes, so the
    file is compared with what it says, and what it says with the network's own numbers.
    """
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    made = copy.deepcopy(plain)
    for layer in made.plain_layers():
        name, folded = layer.layer.name, fold(layer)
        if f"{name}.bias_codes" not in stored:
            continue
        step = stored[f"{name}.bias_scale"].astype(np.float64)
        bias = stored[f"{name}.bias_codes"] * step
        assert np.all(np.abs(bias - folded.bias) <= 0.5001 * step)
        column = (-1, *[1] * (layer.op.weight.dim() - 1))
        weight = folded.codes * folded.scale.astype(np.float64).reshape(column)
        if f"{name}.codes" in stored and layer.layer.weight_bits == 8:
            scale = stored[f"{name}.scale"].astype(np.float64).reshape(column)
            kept = stored[f"{name}.codes"] * scale
            assert np.all(np.abs(kept - weight) <= 0.5001 * scale)
            weight = kept
        layer.norm = torch.nn.Identity()
        layer.op.weight = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float32))
        layer.op.bias = torch.nn.Parameter(torch.tensor(bias, dtype=torch.float32))
    return made


def packed_widths(path: Path) -> set[str]:
    names = {t.name.partition("_")[0] for t in onnx.load(path).graph.initializer}
    return {name for name in names if name.startswith("packed")}


@pytest.mark.parametrize("pair", [(1, 4), (2, 4), (2, 5), (3, 8), (4, 5), (8, 8)], ids=str)
@pytest.mark.parametrize("space", SPACE_NAMES)
def test_the_low_bit_runtime_gives_the_outputs_of_onnx(space, pair, tmp_path):
    """From the space through the quantiser and the packed file to integer kernels."""
    try:
        find_compiler()
    except EnvironmentProblem:
        pytest.skip("no compiler on this machine")
    plain, images = network(space, "lsq", *pair)
    path = tmp_path / "model.onnx"
    export_onnx(plain, path, reduce_range=True)
    pack_onnx(path, tmp_path / "model.lowbit")
    expected = evaluate_onnx(path, [images], optimise=False)
    # A language model of the low-bit runtime reads one text at a time.
    method = run_each if space == "decoder" else run
    output = method("lowbit", tmp_path / "model.lowbit", images, tune=False)
    moved = moved_by_noise(path, images, expected)
    assert relative(output, expected) < max(0.02 if pair[1] >= 4 else 0.1, moved)


def moved_by_noise(path: Path, images: np.ndarray, expected: np.ndarray) -> float:
    """Sums in another order round a value between two codes the other way, as noise does."""
    noisy = images
    if np.issubdtype(images.dtype, np.floating):
        noise = np.random.default_rng(1).standard_normal(images.shape)
        noisy = images + 1e-4 * noise.astype(images.dtype)
    return relative(evaluate_onnx(path, [noisy], optimise=False), expected)


@pytest.mark.parametrize("space", SPACE_NAMES)
def test_ternary_weights_are_three_codes_of_two_bits(space, tmp_path):
    plain, images = network(space, "ternary", 2, 4)
    path = tmp_path / "model.onnx"
    export_onnx(plain, path, reduce_range=True)
    assert check_optimised(path, images).passed
    packed = pack_onnx(path, tmp_path / "model.lowbit")
    more = 0.15 if space == "encoder_decoder" else 0.02
    assert packed.weights_kib == pytest.approx(plain.plan.weights_kib, rel=more)
    codes = [
        packed.codes(node["weights"])
        for node in packed.nodes()
        if node.get("weights", {}).get("bits") == 2
    ]
    assert codes and all(set(np.unique(c)) <= {-1, 0, 1} for c in codes)


@pytest.mark.parametrize("space", SPACE_NAMES)
def test_float_onnx_is_the_network(space, tmp_path):
    made = supernet(space, "lsq")
    plan = float_plan(made.space.plan(made.space.sample(np.random.default_rng(3))))
    plain, images = extracted(made, plan)
    path = tmp_path / "float.onnx"
    export_onnx(plain, path)
    assert check_optimised(path, images).passed
    with torch.no_grad():
        reference = plain(torch.from_numpy(images)).numpy()
    assert relative(evaluate_onnx(path, [images]), reference) < 1e-4


@pytest.mark.parametrize("pair", [(1, 4), (2, 4), (3, 8), (8, 8), (32, 32)], ids=str)
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("space", SPACE_NAMES)
def test_other_formats_give_the_outputs_of_onnx(space, runtime, pair, tmp_path, monkeypatch):
    pytest.importorskip(RUNTIMES[runtime])
    monkeypatch.setenv("EDGE_NAS_CACHE", str(tmp_path / "cache"))
    made = supernet(space, "lsq")
    if pair == (32, 32):
        plan = float_plan(made.space.plan(made.space.sample(np.random.default_rng(3))))
        plain, images = extracted(made, plan)
    else:
        plain, images = network(space, "lsq", *pair)
    path = tmp_path / "model.onnx"
    export_onnx(plain, path, reduce_range=True)
    expected = evaluate_onnx(path, [images], optimise=False)
    if (space, runtime) in REFUSED:
        with pytest.raises(InputError, match=REFUSED[space, runtime]):
            run(runtime, path, images)
        return
    output = run(runtime, path, images)
    assert np.isfinite(output).all()
    if pair[0] == 32:
        assert relative(output, expected) < 0.001
    else:
        moved = moved_by_noise(path, images, expected)
        assert relative(output, expected) < max(0.02, 3 * moved)
