"""An encoder-decoder read once and answered symbol by symbol is what it is with everything at once.

The whole is held against PyTorch's own attention, too.
"""

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from search_spaces.errors import InputError
from search_spaces.spaces.registry import build_space
from supernet.language import HIDDEN
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.sequences import attended_to, mask_of, split_memory
from supernet.transducing import EncodingStep, TransducingStep

SOURCE, TARGET = 6, 5


def inputs_of(rows=3):
    source = torch.randint(1, 9, (rows, 1, 1, SOURCE))
    source[0, ..., 4:] = 0
    return torch.cat([source, torch.randint(0, 7, (rows, 1, 1, TARGET))], 3).float()


def network_of(bits, end="largest"):
    torch.manual_seed(0)
    space = build_space(
        "encoder_decoder", outputs=7, source_length=SOURCE, source_vocabulary=9,
        input_size=(1, SOURCE + TARGET), weight_bits=[bits],
        activation_bits=[32 if bits == 32 else 8], edge_bits=min(bits, 8), encoder_depths=[1, 2, 3],
        attends=[1, 2, 3],
    )  # fmt: skip
    supernet = Supernet(space)
    plan = space.plan(getattr(space, end)())
    inputs = inputs_of()
    supernet(inputs, plan)
    return supernet.extract(plan, {}), inputs


def answered(read, run, network, inputs):
    """Return the values after each symbol of the target: (batch, target, outputs)."""
    step = TransducingStep(network)
    mask, *memory = read(inputs[..., :SOURCE])
    caches = step.empty(len(inputs))
    found = []
    for place in range(TARGET):
        # What lies in free places counts for nothing.
        given = [torch.where(cache == 0, torch.full_like(cache, 7.0), cache) for cache in caches]
        free = torch.full((len(inputs), 1), float(TARGET - 1 - place))
        token = inputs[:, 0, 0, SOURCE + place : SOURCE + place + 1]
        logits, *new = run(token, free, mask, *memory, *given)
        found.append(logits)
        for i, one in enumerate(new):
            caches[i].narrow(3 if i % 2 == 0 else 2, place, 1).copy_(one)
    return torch.stack(found, 1)


@pytest.mark.parametrize("end", ["largest", "smallest"])
def test_steps_give_what_the_whole_does(end):
    network, inputs = network_of(32, end)
    with torch.no_grad():
        expected = network(inputs)
        found = answered(EncodingStep(network), TransducingStep(network), network, inputs)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("bits", [32, 8, 2])
def test_exported_files_do_too(bits, tmp_path):
    network, inputs = network_of(bits)
    sessions = []
    for name, step in (("encode", EncodingStep(network)), ("decode", TransducingStep(network))):
        path = tmp_path / f"{name}.onnx"
        export_onnx(step, path, inputs=step.inputs, outputs=step.outputs)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(path), options)
        assert [i.name for i in session.get_inputs()] == list(step.inputs)
        assert [o.name for o in session.get_outputs()] == list(step.outputs)
        for given in session.get_inputs():
            assert tuple(given.shape[1:]) == step.inputs[given.name]
        sessions.append(session)

    def runner(session):
        def run(*given):
            names = [i.name for i in session.get_inputs()]
            feed = {n: v.numpy() for n, v in zip(names, given, strict=True)}
            return [torch.from_numpy(v) for v in session.run(None, feed)]

        return run

    with torch.no_grad():
        expected = network(inputs).numpy()
    found = answered(*map(runner, sessions), network, inputs).numpy()
    # A rounding that falls the other way moves an untrained network of few bits.
    allowed = 1e-5 if bits == 32 else 0.1
    assert np.linalg.norm(found - expected) <= allowed * np.linalg.norm(expected)


def test_what_fills_a_source_up_changes_nothing():
    network, inputs = network_of(32)
    with torch.no_grad():
        expected = network(inputs)
        # The embedding of 0 is never attended to.
        table = network[0].ops["embed"].table
        table[0] += 3.0
        torch.testing.assert_close(network(inputs)[0], expected[0], atol=1e-5, rtol=1e-4)
        changed = inputs.clone()
        changed[..., 2] = 1 + (changed[..., 2] % 8)
        assert not torch.allclose(network(changed), expected, atol=1e-3)


def test_a_symbol_sees_no_later_one():
    network, inputs = network_of(32)
    changed = inputs.clone()
    changed[..., SOURCE + 3] = (changed[..., SOURCE + 3] + 1) % 7
    with torch.no_grad():
        before, after = network(inputs), network(changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-4)


def test_attention_to_the_encoder_is_that_of_torch():
    torch.manual_seed(1)
    heads, width = 2, 4
    query, joint = torch.randn(3, 5, heads * width), torch.randn(3, 6, 2 * heads * width)
    source = torch.tensor([[1, 2, 3, 0, 0, 0], [1, 2, 3, 4, 5, 6], [1, 0, 0, 0, 0, 0]]).float()
    mask = mask_of(source)
    assert mask.shape == (3, 1, 1, 6) and set(mask.unique().tolist()) == {0.0, HIDDEN}
    keys, values = split_memory(joint, heads)
    split = query.unflatten(2, (heads, width)).transpose(1, 2)
    expected = F.scaled_dot_product_attention(split, keys.transpose(2, 3), values, mask == 0)
    found = attended_to(query, keys, values, mask)
    torch.testing.assert_close(found, expected.transpose(1, 2).flatten(2))


def test_other_networks_have_no_source():
    torch.manual_seed(0)
    space = build_space("decoder", outputs=7, input_size=(1, 6))
    supernet = Supernet(space)
    plan = space.plan(space.smallest())
    supernet(torch.zeros(2, *plan.input_shape), plan)
    for kind in (EncodingStep, TransducingStep):
        with pytest.raises(InputError, match="decoder has no source to be read apart"):
            kind(supernet.extract(plan, {}))
