"""A token at a time gives what a window at once does, in torch and in an exported file."""

import numpy as np
import onnxruntime
import pytest
import torch

from search_spaces.errors import InputError
from search_spaces.spaces.registry import build_space
from supernet.decoding import DecodingStep
from supernet.network import Supernet
from supernet.onnx.export import export_onnx

LENGTH = 12


def network_of(bits, end="largest"):
    torch.manual_seed(0)
    space = build_space(
        "decoder", outputs=11, weight_bits=[bits], activation_bits=[32 if bits == 32 else 8],
        edge_bits=min(bits, 8), input_size=(1, LENGTH),
    )  # fmt: skip
    supernet = Supernet(space)
    plan = space.plan(getattr(space, end)())
    tokens = torch.randint(0, 11, (3, 1, 1, LENGTH)).float()
    # Steps of quantisers are set by the first data.
    supernet(tokens, plan)
    return supernet.extract(plan, {}), tokens


def decoded(run, step, tokens):
    """Return the values after each token, from empty caches: (batch, tokens, vocabulary)."""
    caches = step.empty(len(tokens))
    found = []
    for place in range(LENGTH):
        # What lies in free places counts for nothing.
        given = [torch.where(cache == 0, torch.full_like(cache, 7.0), cache) for cache in caches]
        free = torch.full((len(tokens), 1), float(LENGTH - 1 - place))
        logits, *new = run(tokens[:, 0, 0, place : place + 1], free, *given)
        found.append(logits)
        for i, one in enumerate(new):
            axis = 3 if i % 2 == 0 else 2
            caches[i].narrow(axis, place, 1).copy_(one)
    return torch.stack(found, 1)


@pytest.mark.parametrize("end", ["largest", "smallest"])
def test_steps_give_what_a_window_does(end):
    network, tokens = network_of(32, end)
    with torch.no_grad():
        expected = network(tokens)
        found = decoded(DecodingStep(network), DecodingStep(network), tokens)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("bits", [32, 8, 2])
def test_an_exported_step_does_too(bits, tmp_path):
    network, tokens = network_of(bits)
    step = DecodingStep(network)
    path = tmp_path / "step.onnx"
    export_onnx(step, path, inputs=step.inputs, outputs=step.outputs)
    options = onnxruntime.SessionOptions()
    # Optimised kernels saturate on processors without dot products of bytes.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == list(step.inputs)
    assert [o.name for o in session.get_outputs()] == list(step.outputs)

    def run(*given):
        feed = {n: v.numpy() for n, v in zip(step.inputs, given, strict=True)}
        return [torch.from_numpy(v) for v in session.run(None, feed)]

    with torch.no_grad():
        expected = network(tokens).numpy()
    found = decoded(run, step, tokens).numpy()
    # A rounding that falls the other way moves an untrained network of few bits.
    allowed = 1e-5 if bits == 32 else 0.05
    assert np.linalg.norm(found - expected) <= allowed * np.linalg.norm(expected)


def test_other_networks_have_no_step():
    torch.manual_seed(0)
    space = build_space("vit", preset="8x8", input_channels=1, outputs=3)
    supernet = Supernet(space)
    plan = space.plan(space.smallest())
    supernet(torch.randn(2, *plan.input_shape), plan)
    with pytest.raises(InputError, match="vit has no step of decoding"):
        DecodingStep(supernet.extract(plan, {}))
