"""Looking for the layer that differs runs the network as it is."""

import numpy as np
import torch

from nas.models.file_check import file_problem
from search_spaces.spaces.registry import build_space
from supernet.network import Supernet
from supernet.onnx.export import export_onnx


def test_a_file_of_other_weights_names_the_first_layer_that_differs(tmp_path):
    torch.manual_seed(0)
    space = build_space("signal", preset="32", input_channels=1, outputs=3, input_size=(1, 24))
    net, images = Supernet(space), torch.randn(16, 1, 1, 24)
    plan = space.plan(space.largest())
    network = net.extract(plan, net.statistics(plan, [images]))
    export_onnx(network, tmp_path / "same.onnx")
    assert file_problem(network, tmp_path / "same.onnx", images) is None
    changed = network.plain_layers()[2]
    changed.op.weight.data = changed.op.weight.data.flip(0)
    told = file_problem(network, tmp_path / "same.onnx", images)
    assert told is not None and "its outputs differ" in told
    # The hooks are gone and left the network as it was.
    assert np.isfinite(network(images).detach().numpy()).all()


def test_a_sample_without_a_usable_file_is_left_out_of_the_measurements(tmp_path):
    from types import SimpleNamespace

    import pytest

    from nas.models.parity import UnusableModel
    from nas.stages.latencies import Latencies

    def files(arch, variant):
        if arch in bad:
            raise UnusableModel(f"{arch} differs")
        return tmp_path / arch

    told = []
    latencies = SimpleNamespace(_files=files, _failed=lambda arch, why: told.append((arch, why)))
    bad = {"b"}
    archs, paths = Latencies._usable_files(latencies, ["a", "b", "c"], ["search"])
    assert archs == ["a", "c"] and [path.name for path in paths["search"]] == ["a", "c"]
    assert told == [("b", "b differs")]
    bad = {"a", "b"}
    with pytest.raises(UnusableModel, match="b differs"):
        Latencies._usable_files(latencies, ["a", "b"], ["search"])
