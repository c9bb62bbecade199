"""The low-bit runtime as a runtime: its parameters, and what it says of a model."""

from __future__ import annotations

import numpy as np
import pytest

from devices.lowbit.build import find_compiler
from devices.measuring.fitness import reference_model
from devices.runtime import make_runtime, random_inputs
from search_spaces.errors import EnvironmentProblem, InputError

try:
    find_compiler()
except EnvironmentProblem:  # pragma: no cover
    pytest.skip("no compiler on this machine", allow_module_level=True)


def test_parameters_name_only_what_was_changed():
    assert "tune" not in make_runtime("lowbit").parameters()
    parameters = make_runtime("lowbit", {"tune": False, "instructions": "portable"}).parameters()
    assert parameters["tune"] is False
    assert parameters["instructions"] == "portable"


def test_a_float_model_is_named_as_doubtful(make_model):
    pytest.importorskip("onnx")
    session = make_runtime("lowbit", {"tune": False}).load(make_model())
    inputs = random_inputs(session.inputs, 0)
    assert session.arithmetic()["float32"] > 0
    assert any("no integer kernel" in doubt for doubt in session.doubts(*inputs))
    with pytest.raises(InputError, match="has shape"):
        session(np.zeros((1, 3, 2, 2), np.float32))


def test_a_product_without_a_bias_runs():
    """The model that ``nas doctor`` tries every runtime with has one."""
    path = reference_model()
    session = make_runtime("lowbit").load(path)
    (x,) = random_inputs(session.inputs, seed=0)
    (expected,) = make_runtime("onnxruntime").load(path)(x)
    np.testing.assert_allclose(session(x)[0], expected, rtol=1e-4, atol=1e-5)
