"""Packed models: the size that was promised, and the outputs of the integer ONNX bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from devices.measuring.conditions import has_dot_products
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import (
    Encoding,
    PackedModel,
    fill_factors,
    pack_codes,
    read_packed_model,
    unpack_codes,
    write_packed_model,
)
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.onnx.packing import pack_onnx
from supernet.training.subnets import at_bits
from tests.supernet.packed_reference import PackedReference
from tests.supernet.sessions import exact_session

WIDTHS = (2, 3, 4, 5, 6, 8, 32)


def make_network(seed: int, bits: tuple[int, int] | None, **options):
    torch.manual_seed(seed)
    if bits is not None:
        options |= {"weight_bits": WIDTHS, "activation_bits": WIDTHS}
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1, **options)
    supernet = Supernet(space)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.endswith("gamma"):
                parameter.copy_(torch.randn_like(parameter))
    plan = space.plan(space.sample(np.random.default_rng(seed)))
    if bits is not None:
        plan = at_inner_bits(plan, *bits)
    images = torch.randn(64, *plan.input_shape)
    return supernet.extract(plan, supernet.statistics(plan, [images])), images


def at_inner_bits(plan, weight_bits: int, activation_bits: int):
    if weight_bits == activation_bits == 32:
        return at_bits(plan, 32, 32)

    def change(layer):
        if layer.role in ("stem", "head", "classifier", "squeeze", "excite"):
            return layer
        return replace(layer, weight_bits=weight_bits, activation_bits=activation_bits)

    return replace(
        plan, blocks=tuple(replace(b, layers=tuple(map(change, b.layers))) for b in plan.blocks)
    )


def onnx_logits(path, images, *, optimise: bool | None = None) -> np.ndarray:
    return exact_session(path, optimise=optimise).run(None, {"input": images.numpy()})[0]


@pytest.mark.parametrize("bits", [(2, 4), (3, 3), (3, 8), (5, 5), (8, 2), (6, 8), None], ids=str)
@pytest.mark.parametrize("reduce_range", [False, True])
def test_size_is_what_the_plan_promises_and_logits_are_bit_exact(bits, reduce_range, tmp_path):
    network, images = make_network(1, bits)
    export_onnx(network, tmp_path / "m.onnx", reduce_range=reduce_range)
    packed = pack_onnx(tmp_path / "m.onnx", tmp_path / "m.lowbit")
    assert packed.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)
    again = read_packed_model(tmp_path / "m.lowbit")
    # Processors without dot-product instructions saturate unless the range is reduced.
    if reduce_range or has_dot_products():
        logits = PackedReference(again)(images.numpy())
        expected = onnx_logits(tmp_path / "m.onnx", images, optimise=True)
        np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("storage", ["packed", "int8"])
def test_both_storages_of_the_onnx_give_the_same_file(storage, tmp_path):
    network, _ = make_network(2, (3, 4))
    export_onnx(network, tmp_path / "m.onnx", weight_storage=storage)
    packed = pack_onnx(tmp_path / "m.onnx", tmp_path / "m.lowbit")
    for node in packed.nodes():
        if "weights" in node:
            edge = node["layer"] in ("stem", "head.conv", "head.classifier")
            assert node["weights"]["bits"] == (8 if edge else 3)
    assert packed.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)


def test_squeeze_and_hard_swish_stay_floats_and_agree(tmp_path):
    stages = (
        {"channels": 8, "stride": 1, "depths": (1,), "activation": "hswish", "squeeze": True},
    )
    network, images = make_network(3, (4, 8), stem_activation="hswish", stages=stages)
    export_onnx(network, tmp_path / "m.onnx")
    packed = pack_onnx(tmp_path / "m.onnx", tmp_path / "m.lowbit")
    logits = PackedReference(packed)(images.numpy())
    expected = onnx_logits(tmp_path / "m.onnx", images)
    assert np.linalg.norm(logits - expected) < 0.02 * np.linalg.norm(expected)
    assert packed.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)


@pytest.mark.parametrize("bits", [(32, 32), (4, 32)], ids=str)
def test_layers_in_float(bits, tmp_path):
    network, images = make_network(4, bits)
    export_onnx(network, tmp_path / "m.onnx")
    packed = pack_onnx(tmp_path / "m.onnx", tmp_path / "m.lowbit")
    expected = onnx_logits(tmp_path / "m.onnx", images)
    np.testing.assert_allclose(PackedReference(packed)(images.numpy()), expected, atol=1e-3)
    assert packed.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)


@given(
    bits=st.integers(1, 12),
    count=st.integers(0, 40),
    stride=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**31),
)
def test_codes_come_back_from_a_dense_stream(bits, count, stride, seed):
    encoding = Encoding(bits, -(2 ** (bits - 1)) if stride == 1 else 1 - 2**bits, stride)
    fields = np.random.default_rng(seed).integers(0, 2**bits, count)
    codes = encoding.low + stride * fields
    packed = pack_codes(codes, encoding)
    assert len(packed) == (count * bits + 7) // 8
    np.testing.assert_array_equal(unpack_codes(packed, encoding, (count,)), codes)


def test_the_stream_is_the_documented_one():
    # Fields 1, 2, 3 of three bits: 001, 010, 011 from the lowest bit up.
    packed = pack_codes(np.array([-3, -2, -1]), Encoding(3, -4))
    assert packed.tolist() == [0b11010001, 0b0]
    assert pack_codes(np.array([-1, 1, 1]), Encoding(1, -1, 2)).tolist() == [0b110]


def test_encodings_follow_from_the_codes():
    assert Encoding.for_codes(np.array([-2, 1]), 2) == Encoding(2, -2, 1)
    assert Encoding.for_codes(np.array([-1, 1]), 1) == Encoding(1, -1, 2)
    assert Encoding.for_codes(np.array([-7, 7]), 3) == Encoding(3, -7, 2)
    with pytest.raises(InputError, match=r"layer: codes -3\.\.1 do not fit 2 bits|codes -4"):
        Encoding.for_codes(np.array([-4, 1]), 2, name="layer")


@given(seed=st.integers(0, 2**31), fill=st.sampled_from([64, 127]))
def test_filled_codes_fit(seed, fill):
    codes = np.random.default_rng(seed).integers(-fill, fill + 1, (5, 4))
    factors = fill_factors(codes, fill)
    assert factors.min() >= 1
    assert np.abs(codes * factors[:, None]).max() <= fill
    assert fill_factors(codes, 0).tolist() == [1] * 5


def test_a_file_is_plain_safetensors_and_survives(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    tensors = {"a": np.arange(5, dtype=np.uint8), "b": np.float32([[1.5, -2]])}
    model = PackedModel({"nodes": []}, tensors, {"arch": "x"})
    size = write_packed_model(tmp_path / "m", model)
    assert size == (tmp_path / "m").stat().st_size
    with safetensors.safe_open(tmp_path / "m", framework="np") as file:
        assert json.loads(file.metadata()["graph"]) == {"nodes": []}
        for name, value in tensors.items():
            np.testing.assert_array_equal(file.get_tensor(name), value)
    again = read_packed_model(tmp_path / "m")
    assert again.metadata == {"arch": "x"}
    assert {k: v.tolist() for k, v in again.tensors.items()} == {
        k: v.tolist() for k, v in tensors.items()
    }


@pytest.mark.parametrize(
    ("cut", "message"), [(4, "cut off"), (60, "cut off"), (-3, "does not fit the file")]
)
def test_torn_files_are_refused(cut, message, tmp_path):
    model = PackedModel({"nodes": []}, {"a": np.arange(500, dtype=np.uint8)})
    write_packed_model(tmp_path / "m", model)
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:cut])
    with pytest.raises(InputError, match=message):
        read_packed_model(tmp_path / "m")


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_packed_model(tmp_path / "none")
    save = pytest.importorskip("safetensors.numpy").save_file
    save({"a": np.zeros(2)}, tmp_path / "m")
    with pytest.raises(InputError, match="no low-bit model"):
        read_packed_model(tmp_path / "m")
    (tmp_path / "m").write_bytes(b"not onnx")
    with pytest.raises(InputError, match="cannot be read as ONNX"):
        pack_onnx(tmp_path / "m", tmp_path / "out")


def test_weights_with_a_zero_point_are_refused(tmp_path):
    network, _ = make_network(5, (8, 8))
    export_onnx(network, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.startswith("zeros") and tensor.data_type == onnx.TensorProto.INT8:
            ones = np.ones(tensor.dims, np.int8)
            tensor.CopyFrom(onnx.numpy_helper.from_array(ones, tensor.name))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InputError, match="zero point"):
        pack_onnx(tmp_path / "m.onnx", tmp_path / "out")
