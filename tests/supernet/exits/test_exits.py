"""A network that images leave early: in torch and as one file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.exits.export import export_exits
from supernet.exits.gates import Gate, learned_gate
from supernet.exits.network import ExitNetwork, collect
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from tests.supernet.sessions import exact_session

STAGES = [
    {"channels": 8, "stride": 1, "depths": [1, 2]},
    {"channels": 16, "stride": 2, "depths": [1, 2]},
    {"channels": 16, "stride": 1, "depths": [1, 2]},
]


def networks(bits=8, exits=(1, 2)):
    torch.manual_seed(0)
    space = MobileNetSpace.from_config(
        preset="8x8", input_channels=1, stages=STAGES, stem_channels=4, head_channels=8,
        exits=list(exits), outputs=10, weight_bits=[bits], activation_bits=[bits],
    )  # fmt: skip
    supernet = Supernet(space, zero_init_residual=False)
    whole = dict(space.largest().items)
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = {}
    for stage in space.choices[space.index["exit"]].options:
        plan = supernet.plan(space.arch({**whole, "exit": stage}))
        found[stage] = supernet.extract(plan, supernet.statistics(plan, [images]))
    return found


def images(count=24) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def gates(network: ExitNetwork, kind: str) -> list[Gate]:
    """Gates at which about half of the images leave."""
    found = []
    for logits in network.outputs(images())[:-1]:
        right = logits[:, 0] > logits[:, 0].median()
        gate = learned_gate(logits, right) if kind == "learned" else Gate(kind, 0.0)
        threshold = float(gate.score(logits).detach().median())
        found.append(Gate(kind, threshold, gate.weight, gate.bias))
    return found


def test_an_exit_says_what_its_own_network_does():
    own = networks()
    network = ExitNetwork(own)
    assert network.exits == (1, 2, 3)
    for stage, logits in zip(network.exits, network.outputs(images()), strict=True):
        torch.testing.assert_close(logits, own[stage](images()))


def test_images_leave_where_a_gate_is_sure():
    network = ExitNetwork(networks())
    network.gates = tuple(gates(network, "confidence"))
    every = network.outputs(images())
    logits, left = network(images())
    for k, image in enumerate(left.tolist()):
        sure = [g.score(o)[k] >= g.threshold for g, o in zip(network.gates, every, strict=False)]
        assert image == (sure.index(True) if True in sure else 2)
        assert torch.equal(logits[k], every[image][k])
    assert len(set(left.tolist())) == 3


@pytest.mark.parametrize(("kind", "bits"), [("confidence", 8), ("energy", 32), ("learned", 8)])
def test_the_file_takes_the_same_ways(kind, bits, tmp_path):
    own = networks(bits)
    network = ExitNetwork(own)
    network.gates = tuple(gates(network, kind))
    alone = {}
    for index, stage in enumerate(network.exits):
        export_onnx(own[stage], tmp_path / f"{stage}.onnx", batch=1)
        alone[index] = exact_session(tmp_path / f"{stage}.onnx")
    assert export_exits(network, tmp_path / "m.onnx", metadata={"arch": "a"}) > 1
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node][-1] == "If"
    session = exact_session(tmp_path / "m.onnx")
    _, left = network(images())
    same = 0
    for k, image in enumerate(images()):
        logits, (went,) = session.run(None, {"input": image[None].numpy()})
        # As the file of that exit alone computes it.
        (wanted,) = alone[went].run(None, {"input": image[None].numpy()})
        np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
        same += went == left[k]
    # An image on the threshold may go the other way after a rounding.
    assert same >= 0.8 * len(left)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3))
@settings(max_examples=20, deadline=None)
def test_energy_is_above_and_confidence_within_one(values):
    logits = torch.tensor([values])
    assert Gate("energy", 0.0).score(logits).item() >= max(values) - 1e-5
    assert 1 / 3 - 1e-6 <= Gate("confidence", 0.0).score(logits).item() <= 1


def test_a_gate_learns_what_wrong_answers_look_like():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 5, generator=generator)
    margin = logits.sort(1, descending=True).values
    right = (margin[:, 0] - margin[:, 1]) > 0.8
    gate = learned_gate(logits, right)
    assert (gate.leaves(logits) == right).float().mean() > 0.95
    with pytest.raises(InputError, match="these are of one kind"):
        learned_gate(logits, torch.ones(400, dtype=torch.bool))


def test_what_cannot_be_is_refused(tmp_path):
    own = networks()
    with pytest.raises(InputError, match="give at least two"):
        ExitNetwork({3: own[3]})
    with torch.no_grad():
        next(own[1].parameters()).add_(1.0)
    with pytest.raises(InputError, match="the block stem of exit 2 has other weights"):
        ExitNetwork(own)
    network = ExitNetwork(networks())
    for refused in (lambda: network(images()), lambda: export_exits(network, tmp_path / "m.onnx")):
        with pytest.raises(InputError, match="3 exits need 2 gates"):
            refused()
    with pytest.raises(InputError, match="no gate 'entropy'"):
        Gate("entropy", 0.5)
    with pytest.raises(InputError, match="a learned gate has weights"):
        Gate("learned", 0.5)


def test_outputs_of_all_images_are_collected():
    network = ExitNetwork(networks())
    batches = [(images(), torch.zeros(24)), (images(8), torch.ones(8))]
    outputs, targets = collect(network, batches)
    assert [o.shape for o in outputs] == [(32, 10)] * 3 and targets.sum() == 8
