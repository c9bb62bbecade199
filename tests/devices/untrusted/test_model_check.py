"""Model files from elsewhere: what may be loaded, and what is refused before anything does."""

import random
from pathlib import Path

import pytest

from devices.measuring.fitness import reference_model
from devices.untrusted.flatbuffer_check import element_count
from devices.untrusted.model_check import ModelLimits, check_model
from search_spaces.errors import InputError

onnx = pytest.importorskip("onnx")
helper, tensor = onnx.helper, onnx.TensorProto


def varint(value):
    out = bytearray()
    while True:
        out.append((value & 127) | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(out)


def field(number, content):
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def bomb(sizes):
    """The smallest model that asks for a weight of ``sizes`` and holds none of it."""
    dims = b"".join(field(1, size) for size in sizes)
    weight = dims + field(2, 1) + field(8, b"w")
    graph = field(1, field(1, b"w") + field(2, b"y") + field(4, b"Identity")) + field(5, weight)
    return field(1, 8) + field(8, field(2, 17)) + field(7, graph)


def model(nodes, initializers=(), *, shape=(1, 4), opset=17, **options):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", tensor.FLOAT, shape)],
        [helper.make_tensor_value_info("y", tensor.FLOAT, None)],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **options)


def ints(name, *values):
    return helper.make_tensor(name, tensor.INT64, [len(values)], values)


@pytest.fixture
def check(tmp_path):
    def run(content, **limits):
        path = tmp_path / "model"
        if not isinstance(content, bytes):
            content = content.SerializeToString()
        path.write_bytes(content)
        return check_model(path, ModelLimits(**limits))

    return run


def test_ordinary_models_pass(check, make_model):
    assert check(make_model().read_bytes()) == "onnx"
    assert check(reference_model().read_bytes()) == "onnx"
    shape = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "four"], ["to"], axis=0),
        helper.make_node("Expand", ["x", "to"], ["y"]),
    ]
    assert check(model(shape, [ints("zero", 0), ints("four", 4)])) == "onnx"


@pytest.mark.parametrize("sizes", [[1 << 40], [1 << 20, 1 << 20], [1 << 62, 1 << 62], [1000]])
def test_weights_that_are_not_there_are_refused(check, sizes):
    content = bomb(sizes)
    assert len(content) < 90
    with pytest.raises(InputError, match=r"elements allowed|does not hold the data"):
        check(content)


def test_negative_sizes_are_refused(check):
    with pytest.raises(InputError, match="negative"):
        check(bomb([2**64 - 5]))


@pytest.mark.parametrize(
    "nodes, constants",
    [
        ([("ConstantOfShape", ["n"], {})], [("n", 1 << 40)]),
        ([("ConstantOfShape", ["n"], {})], [("n", 1 << 20, 1 << 20)]),
        ([("Expand", ["x", "n"], {})], [("n", 1 << 30, 4)]),
        ([("Tile", ["x", "n"], {})], [("n", 1 << 30, 1 << 30)]),
        ([("Mul", ["n", "n"], {}), ("ConstantOfShape", ["0"], {})], [("n", 1 << 20)]),
        ([("Concat", ["n", "n", "n"], {"axis": 0}), ("ConstantOfShape", ["0"], {})], [("n", 4096)]),
        ([("Constant", [], {"value_ints": [1 << 40]}), ("ConstantOfShape", ["0"], {})], []),
        ([("Pad", ["x", "n"], {})], [("n", 1 << 14, 1 << 14, 1 << 14, 1 << 14)]),
        ([("Conv", ["x", "x"], {"pads": [1 << 20] * 4})], []),
        ([("ConvTranspose", ["x", "x"], {"output_shape": [1 << 20, 1 << 20]})], []),
    ],
)
def test_operators_that_are_told_to_make_too_much_are_refused(check, nodes, constants):
    made = [
        helper.make_node(kind, inputs, [str(i) if i + 1 < len(nodes) else "y"], **attributes)
        for i, (kind, inputs, attributes) in enumerate(nodes)
    ]
    with pytest.raises(InputError, match=r"elements|proportion|is computed by"):
        check(model(made, [ints(name, *values) for name, *values in constants]))


def test_a_large_input_is_refused(check):
    node = helper.make_node("Relu", ["x"], ["y"])
    with pytest.raises(InputError, match="input"):
        check(model([node], shape=(1 << 20, 1 << 20)))


def test_budgets_of_bytes_elements_and_fields(check, make_model):
    content = make_model(channels=16).read_bytes()
    for limits, message in (
        ({"bytes": 100}, "bytes"),
        ({"elements": 100}, "elements"),
        ({"fields": 20}, "fields"),
    ):
        with pytest.raises(InputError, match=message):
            check(content, **limits)


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd"])
def test_external_data_is_refused(check, location):
    weight = helper.make_tensor("w", tensor.FLOAT, [4], [0.0] * 4)
    weight.ClearField("float_data")
    weight.data_location = tensor.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    with pytest.raises(InputError, match="external"):
        check(model([helper.make_node("Add", ["x", "w"], ["y"])], [weight]))
    constant = helper.make_node("Constant", [], ["w"], value=weight)
    with pytest.raises(InputError, match="external"):
        check(model([constant, helper.make_node("Add", ["x", "w"], ["y"])]))


@pytest.mark.parametrize(
    "kind, domain",
    [("Loop", ""), ("If", ""), ("Scan", ""), ("RandomNormal", ""), ("StringNormalizer", ""),
     ("PyOp", "ai.onnx.contrib"), ("Evil", "com.example"), ("PythonOp", "com.microsoft")],
)  # fmt: skip
def test_operators_outside_the_list_are_refused(check, kind, domain):
    with pytest.raises(InputError, match=f"{kind}.* is not allowed"):
        check(model([helper.make_node(kind, ["x"], ["y"], domain=domain)]))


def test_functions_sparse_weights_and_training_are_refused(check):
    function = helper.make_function(
        "f", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], []
    )
    whole = model([helper.make_node("Relu", ["x"], ["y"])], functions=[function])
    with pytest.raises(InputError, match="functions"):
        check(whole)
    sparse = model([helper.make_node("Relu", ["x"], ["y"])])
    sparse.graph.sparse_initializer.add()
    with pytest.raises(InputError, match="sparse"):
        check(sparse)


def test_every_truncation_is_refused(check, make_model):
    content = make_model().read_bytes()
    for size in range(0, len(content), 3):
        # A cut between two fields of the outermost level leaves a model without its end.
        with pytest.raises(InputError):
            check(content[:size])


def test_bit_flips_are_refused_or_harmless(check, make_model):
    """Whatever passes still keeps to every budget; most flips of weights are another model."""
    content = make_model(channels=2).read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(500):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        try:
            assert check(bytes(flipped)) == "onnx"
        except InputError:
            refused += 1
    assert refused >= 20


def test_noise_never_ends_in_anything_but_a_refusal(check):
    rng = random.Random(0)
    for _ in range(300):
        with pytest.raises(InputError):
            check(rng.randbytes(rng.randrange(300)))


def test_deep_nesting_is_refused(check):
    graph = b""
    for _ in range(50):
        attribute = field(1, b"body") + field(6, graph)
        graph = field(1, field(4, b"Relu") + field(5, attribute))
    with pytest.raises(InputError, match="nested"):
        check(field(1, 8) + field(8, field(2, 17)) + field(7, graph))


def test_litert_files_are_known_by_their_mark(check):
    whole = (Path(__file__).parent / "files" / "small.tflite").read_bytes()
    assert check(whole) == "litert"
    with pytest.raises(InputError, match="truncated"):
        check((2000).to_bytes(4, "little") + b"TFL3" + bytes(40))


@pytest.mark.parametrize("count", [60_000, 240_000])
@pytest.mark.timeout(120)
def test_many_large_sizes_are_refused_without_multiplying_them_all(check, count):
    """The product of a hundred thousand sizes has a million digits, and took minutes."""
    sizes = varint(2**62 + 1) * count
    tensor = field(1, sizes) + field(2, 1) + field(8, b"w")
    graph = field(5, tensor) + field(2, b"g")
    content = field(1, 8) + field(7, graph) + field(8, field(2, 17))
    with pytest.raises(InputError, match=r"elements allowed|does not hold"):
        check(content, fields=10**6)


def test_a_product_of_sizes_is_bounded_and_exact_below():
    assert element_count([]) == 1 and element_count([3, -4, 5]) == 60
    assert element_count([2**61, 2**61, 0]) == 0
    assert element_count([2**40] * 10**5) == 2**62
