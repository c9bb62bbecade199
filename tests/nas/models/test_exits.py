"""Files of early exits are held against the network before anyone trusts them."""

from __future__ import annotations

import pytest

from nas.models import exits as module
from nas.models.exits import check_exits, export_exits_checked
from nas.models.parity import UnusableModel
from supernet.exits.export import export_exits
from supernet.exits.gates import Gate
from supernet.exits.network import ExitNetwork
from tests.supernet.exits.test_exits import images, networks


def gated(threshold: float) -> ExitNetwork:
    network = ExitNetwork(networks(8))
    network.gates = (Gate("confidence", threshold), Gate("confidence", threshold))
    return network


def middling(network: ExitNetwork) -> float:
    return float(network.outputs(images())[0].detach().softmax(1).amax(1).median())


@pytest.fixture
def network() -> ExitNetwork:
    return gated(middling(gated(0.5)))


@pytest.mark.parametrize("has_vnni", [True, False])
def test_a_file_leaves_where_the_network_does(network, has_vnni, tmp_path):
    kib, check = export_exits_checked(
        network, tmp_path / "m.onnx", images(), has_vnni=has_vnni, metadata={"arch": "a"}
    )
    assert kib == pytest.approx((tmp_path / "m.onnx").stat().st_size / 1024)
    assert check.problem is None
    assert check.images == len(images())
    assert check.relative_error < 0.05


@pytest.mark.parametrize("has_vnni", [True, False])
def test_weights_have_seven_bits_where_products_saturate(network, has_vnni, tmp_path, monkeypatch):
    asked = []

    def write(network, path, *, reduce_range, **options):
        asked.append(reduce_range)
        return export_exits(network, path, reduce_range=reduce_range, **options)

    monkeypatch.setattr("supernet.exits.export.export_exits", write)
    export_exits_checked(network, tmp_path / "m.onnx", images(), has_vnni=has_vnni)
    # Where this machine's products saturate, a file for one that does not is not usable here.
    assert asked in ([False], [False, True])
    assert has_vnni or asked[-1]


def test_a_file_of_another_network_is_refused(network, tmp_path, monkeypatch):
    nobody_leaves = gated(2.0)
    monkeypatch.setattr(
        "supernet.exits.export.export_exits",
        lambda _, path, **options: export_exits(nobody_leaves, path, **options),
    )
    with pytest.raises(UnusableModel, match=r"only .* of 24 images have the network's class"):
        export_exits_checked(network, tmp_path / "m.onnx", images(), has_vnni=True)
    assert not (tmp_path / "m.onnx").exists()


def test_what_leaves_elsewhere_is_told(network, tmp_path, monkeypatch):
    export_exits_checked(network, tmp_path / "m.onnx", images())
    whole = module.evaluate_outputs

    def optimised_wrongly(path, batches, *, optimise=True, threads=1):
        logits, left = whole(path, batches, optimise=optimise, threads=threads)
        return [logits, 1 - left if optimise else left]

    monkeypatch.setattr(module, "evaluate_outputs", optimised_wrongly)
    check = check_exits(network, tmp_path / "m.onnx", images())
    assert "leave at another exit" in str(check.problem)
