import numpy as np
import pytest

from devices.fleet.agent.config import AgentConfig
from devices.fleet.agent.workshop import Workshop
from devices.runtime import RUNTIMES, Runtime, TensorSpec, make_runtime, random_inputs
from devices.testing.runtime import RuntimeContract
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError

#: Registered name -> parameters under which the contract must hold.
CONTRACT = [(name, {}) for name in RUNTIMES if name != "command"] + [
    ("onnxruntime", {"graph_optimization": "off"})
]


class TestEveryRuntime(RuntimeContract):
    @pytest.fixture(params=CONTRACT, ids=lambda case: f"{case[0]}-{case[1]}")
    def runtime_case(self, request, tmp_path_factory, monkeypatch):
        name, parameters = request.param
        try:
            # Before the cache moves: kernels compiled once are not compiled again for the suite.
            make_runtime(name, parameters)
        except (MissingExtraError, EnvironmentProblem) as error:
            pytest.skip(str(error))
        # Conversions of the suite go to a folder of the session, not to the user's cache.
        monkeypatch.setenv("EDGE_NAS_CACHE", str(tmp_path_factory.getbasetemp() / "conversions"))
        return request.param


def test_unknown_runtime_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'onnxruntime'"):
        make_runtime("onnxruntme")


def test_unknown_parameter_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'threads'"):
        make_runtime("onnxruntime", {"thread": 1})


def test_provider_absent_from_this_build():
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build has CUDA")
    with pytest.raises(EnvironmentProblem, match=r"available: .*CPUExecutionProvider"):
        make_runtime("onnxruntime", {"provider": "cuda"})


def test_unknown_provider():
    with pytest.raises(InputError, match="unknown execution provider 'gpu9000'"):
        make_runtime("onnxruntime", {"provider": "gpu9000"})


def test_a_provider_that_does_not_start_is_not_replaced(make_model):
    runtime = make_runtime("onnxruntime")
    runtime.provider = "AzureExecutionProvider"
    library = runtime._library

    class Fallback:
        """The library's way: a session on the processor whatever was asked for."""

        def __getattr__(self, name):
            return getattr(library, name)

        def InferenceSession(self, path, options, providers):
            return library.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    runtime._library = Fallback()
    with pytest.raises(EnvironmentProblem, match="did not start"):
        runtime.load(make_model())


def test_missing_package_gives_the_install_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        make_runtime("onnxruntime")


@pytest.mark.parametrize("raised", ["RuntimeError", "OSError", "ImportError"])
def test_a_damaged_package_is_told_and_hides_no_other(monkeypatch, tmp_path, raised):
    (tmp_path / "tract.py").write_text(f"raise {raised}('libtract.so: wrong ELF class')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "tract", raising=False)
    with pytest.raises(
        EnvironmentProblem, match=r"libtract\.so: wrong ELF class.*install"
    ) as found:
        make_runtime("tract")
    assert "not installed" not in str(found.value)
    workshop = Workshop(AgentConfig(runtimes={"onnxruntime": {}}))
    monkeypatch.setattr(RUNTIMES, "broken", {"chip": "plug-in of a chip"})
    assert [offer.name for offer in workshop.describe().runtimes] == ["onnxruntime"]
    workshop.config = AgentConfig()
    monkeypatch.setattr(RUNTIMES, "names", lambda: ["onnxruntime", "tract"])
    assert [offer.name for offer in workshop.describe(opt_in=True).runtimes] == ["onnxruntime"]
    assert "wrong ELF class" in workshop.broken["tract"] and "chip" in workshop.broken


def test_graph_optimisation_is_part_of_the_description():
    on = make_runtime("onnxruntime", {"graph_optimization": True}).describe()
    off = make_runtime("onnxruntime", {"graph_optimization": False}).describe()
    assert on["parameters"]["graph_optimization"] == "all"
    assert off["parameters"]["graph_optimization"] == "off"
    with pytest.raises(InputError, match="graph_optimization"):
        make_runtime("onnxruntime", {"graph_optimization": "most"})


class Plain(Runtime):
    name = "plain"
    version = "0"

    def load(self, path):
        raise NotImplementedError


def test_open_axes_are_filled_from_batch_and_shapes():
    runtime = Plain(batch=4, shapes={"ids": [4, 16]})
    assert runtime.resolve_shape("x", [None, 3, 8]) == (4, 3, 8)
    assert runtime.resolve_shape("ids", [None, None]) == (4, 16)
    with pytest.raises(InputError, match=r"shapes: \{mask"):
        runtime.resolve_shape("mask", [None, None])
    with pytest.raises(InputError, match="ids"):
        runtime.resolve_shape("ids", [None, 8])


def test_random_inputs_are_seeded_and_in_range():
    specs = [TensorSpec("x", (64, 64), "float16"), TensorSpec("ids", (100,), "int64")]
    first, ids = random_inputs(specs, 5)
    again, _ = random_inputs(specs, 5)
    other, _ = random_inputs(specs, 6)
    assert first.dtype == np.float16 and ids.dtype == np.int64
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert abs(float(first.std()) - 1) < 0.05
    assert set(ids.tolist()) == {0, 1}
