"""Layers of floats give what NumPy does on every instruction set; language models are exact."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from devices.lowbit import float_ops
from devices.lowbit.library import Native, features, restrict
from devices.runtime import make_runtime
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import read_packed_model, write_packed_model
from search_spaces.model_files.packing import pack_model
from search_spaces.spaces.registry import build_space
from supernet.decoding import DecodingStep
from supernet.network import Supernet
from supernet.onnx.export import export_onnx

LENGTH = 12
SETS = ["portable", *(name for name in ("avx2", "neon") if name in features()), ""]


@pytest.fixture(params=SETS, ids=lambda name: name or "all")
def instructions(request):
    restrict(request.param)
    yield
    restrict("")


def filled(native, array):
    array = np.ascontiguousarray(array, np.float32)
    number = native.buffer(array.nbytes)
    native.array(number, array.shape, np.float32)[...] = array
    return number


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", [5, 16, 35])
def test_rows_numbers_and_sums(instructions, width, threads):
    rng = np.random.default_rng(width)
    x, y = rng.standard_normal((2, 7, width)).astype(np.float32)
    scale, bias = rng.standard_normal((2, width)).astype(np.float32)
    native = Native(threads)
    a, b = filled(native, x), filled(native, y)
    out = [native.buffer(x.nbytes) for _ in range(4)]
    shape = (7, width)
    native.rows(float_ops.LAYER_NORM, a, out[0], shape, epsilon=1e-5, scale=scale, bias=bias)
    native.rows(float_ops.SOFTMAX, a, out[1], shape)
    native.layer("pointwise", float_ops.GELU, a, out[2], x.size)
    native.layer("plus", a, b, out[3], x.size)
    native.run()
    found = [native.array(n, x.shape, np.float32) for n in out]
    given = torch.from_numpy(x)
    norm = torch.nn.functional.layer_norm(
        given, (width,), torch.from_numpy(scale), torch.from_numpy(bias)
    )
    np.testing.assert_allclose(found[0], norm.numpy(), atol=2e-5)
    np.testing.assert_allclose(found[1], given.softmax(-1).numpy(), atol=1e-6)
    np.testing.assert_allclose(found[2], torch.nn.functional.gelu(given).numpy(), atol=1e-6)
    np.testing.assert_array_equal(found[3], x + y)


def by_eights(keys):
    """Keys (heads, length, width) as the library keeps them: eights side by side, 0 beyond."""
    heads, length, width = keys.shape
    padded = np.pad(keys, ((0, 0), (0, -length % 8), (0, 0)))
    return padded.reshape(heads, -1, 8, width).transpose(0, 1, 3, 2)


@pytest.mark.parametrize("width", [4, 16, 19, 40])
def test_attention_sees_what_is_before_and_keeps_what_it_is_given(instructions, width):
    rng = np.random.default_rng(width)
    heads, length, tokens, free = 3, 13, 3, 2
    joint = rng.standard_normal((tokens, heads, 3, width)).astype(np.float32)
    cache = rng.standard_normal((2, heads, length, width)).astype(np.float32)
    native = Native(2)
    source, left = filled(native, joint), filled(native, [free])
    keys, values = filled(native, by_eights(cache[0])), filled(native, cache[1])
    out = native.buffer(4 * tokens * heads * width)
    native.layer("attend", source, left, out, keys, values, tokens, heads, length, width)
    native.run()
    first = length - tokens - free
    expected = cache.copy()
    expected[:, :, first : first + tokens] = joint[:, :, 1:].transpose(2, 1, 0, 3)
    for number, array in ((keys, by_eights(expected[0])), (values, expected[1])):
        np.testing.assert_array_equal(native.array(number, array.shape, np.float32), array)
    found = native.array(out, (tokens, heads, width), np.float32)
    for t in range(tokens):
        k, v = (torch.from_numpy(part[:, : first + t + 1]) for part in expected)
        query = torch.from_numpy(joint[t, :, 0])[:, None]
        told = torch.nn.functional.scaled_dot_product_attention(query, k, v)[:, 0]
        np.testing.assert_allclose(found[t], told.numpy(), atol=1e-5)


@pytest.mark.parametrize(("left", "place"), [(0, 6), (2.4, 4), (99, 0), (-5, 6), (np.nan, 6)])
def test_embeddings_of_numbers_that_may_be_anything(left, place):
    table, positions = (np.random.default_rng(0).standard_normal((n, 5)) for n in (4, 7))
    for given, entry in ((2.0, 2), (1.6, 2), (-3.0, 0), (9.0, 3), (np.nan, 0)):
        native = Native()
        source, free, out = filled(native, [given]), filled(native, [left]), native.buffer(20)
        native.embed(source, free, out, 1, table, positions)
        native.run()
        expected = table[entry].astype(np.float32) + positions[place].astype(np.float32)
        np.testing.assert_array_equal(native.array(out, (5,), np.float32), expected)


def test_layers_that_cannot_be_are_refused():
    native = Native()
    small = native.buffer(16)
    table = np.zeros((3, 4), np.float32)
    with pytest.raises(InputError, match="room for each token"):
        native.layer("attend", small, -1, small, small, small, 3, 1, 2, 1)
    with pytest.raises(InputError, match="has 16 bytes, not"):
        native.layer("attend", small, -1, small, small, small, 1, 2, 8, 4)
    with pytest.raises(InputError, match="a position for each token"):
        native.embed(small, -1, small, 4, table, table)
    with pytest.raises(InputError, match="do not fit"):
        native.embed(small, -1, small, 1, table, np.zeros((3, 5), np.float32))
    with pytest.raises(InputError, match="a norm of width 4 has numbers of shape"):
        native.rows(float_ops.LAYER_NORM, small, small, (1, 4), scale=np.zeros(3, np.float32))
    with pytest.raises(InputError, match="no such function"):
        native.layer("pointwise", 9, small, small, 4)


@pytest.fixture(scope="module", params=[8, 4, 2, 32])
def files(request, tmp_path_factory):
    bits = request.param
    torch.manual_seed(0)
    space = build_space(
        "decoder", outputs=11, weight_bits=[bits], activation_bits=[32 if bits == 32 else bits],
        edge_bits=min(bits, 8), input_size=(1, LENGTH),
    )  # fmt: skip
    supernet = Supernet(space)
    plan = space.plan(space.largest())
    tokens = torch.randint(0, 11, (3, 1, 1, LENGTH)).float()
    supernet(tokens, plan)
    network = supernet.extract(plan, {})
    folder = tmp_path_factory.mktemp("files")
    export_onnx(network, folder / "window.onnx")
    step = DecodingStep(network)
    export_onnx(step, folder / "step.onnx", inputs=step.inputs, outputs=step.outputs)
    with torch.no_grad():
        expected = network(tokens[:1]).numpy()
    return bits, folder, tokens[:1].numpy(), expected


def test_a_language_model_is_exact_in_windows_and_in_steps(files):
    bits, folder, tokens, expected = files
    window, step = (
        make_runtime("lowbit", {"tune": False}).load(folder / f"{name}.onnx")
        for name in ("window", "step")
    )
    found = window(tokens)[0]
    assert [spec.name for spec in step.inputs] == ["token", "free"]
    one = [
        step(tokens[:, 0, 0, p : p + 1], np.full((1, 1), LENGTH - 1 - p, np.float32))[0].copy()
        for p in range(LENGTH)
    ]
    # Sums of floats in another order may turn a rounding, never more than once in a while.
    allowed = 1e-5 if bits >= 8 else 0.05
    for values in (found, np.stack(one, 1)):
        assert np.linalg.norm(values - expected) <= allowed * np.linalg.norm(expected)
    if bits < 32:
        # Nothing is left to NumPy, so a token is one call of the library.
        assert not step.network.float_operations and not step.doubts()
        assert len(step.network._steps) == 1


def test_a_step_is_written_and_read_as_a_packed_model(files, tmp_path):
    _, folder, tokens, _ = files
    packed = pack_model(onnx.load(folder / "step.onnx"))
    write_packed_model(tmp_path / "step.lowbit", packed)
    assert read_packed_model(tmp_path / "step.lowbit").graph == packed.graph
    runtime = make_runtime("lowbit", {"tune": False})
    given = tokens[:, 0, 0, :1], np.full((1, 1), LENGTH - 1, np.float32)
    values = [
        runtime.load(path)(*given)[0] for path in (tmp_path / "step.lowbit", folder / "step.onnx")
    ]
    np.testing.assert_array_equal(*values)


def test_what_a_language_model_cannot_be_is_told(files, tmp_path):
    _, folder, tokens, _ = files
    with pytest.raises(InputError, match="one text at a time; set batch: 1"):
        make_runtime("lowbit", {"batch": 2}).load(folder / "window.onnx")
    step = make_runtime("lowbit", {"tune": False}).load(folder / "step.onnx")
    with pytest.raises(InputError, match="the model has 2 inputs, 1 were given"):
        step(tokens[:, 0, 0, :1])
    with pytest.raises(InputError, match="input 'free' has shape"):
        step(tokens[:, 0, 0, :1], np.zeros((1, 2), np.float32))
    model = onnx.load(folder / "step.onnx")
    note = next(entry for entry in model.metadata_props if entry.key == "decoder")
    blocks = json.loads(note.value)
    for wrong in ("{}", json.dumps({**blocks, "length": 5}), "words"):
        note.value = wrong
        onnx.save(model, tmp_path / "wrong.onnx")
        with pytest.raises(InputError, match="the file's note 'decoder' does not fit its graph"):
            make_runtime("lowbit", {}).load(tmp_path / "wrong.onnx")


@pytest.mark.parametrize("bits", [8, 32])
def test_other_transformers_are_exact_too(tmp_path, bits):
    """Their attention runs in NumPy between layers of floats that do not."""
    torch.manual_seed(0)
    space = build_space(
        "vit", preset="8x8", input_channels=1, outputs=5, weight_bits=[bits], edge_bits=8,
        activation_bits=[bits],
    )  # fmt: skip
    supernet = Supernet(space)
    plan = space.plan(space.largest())
    images = torch.randn(2, *plan.input_shape)
    supernet(images, plan)
    network = supernet.extract(plan, {})
    export_onnx(network, tmp_path / "vit.onnx")
    session = make_runtime("lowbit", {"tune": False, "batch": 2}).load(tmp_path / "vit.onnx")
    with torch.no_grad():
        expected = network(images).numpy()
    found = session(images.numpy())[0]
    assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected)
