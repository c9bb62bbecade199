"""What every runtime must do, as tests that a runtime's author runs too.

Subclass the suite and say which runtime::

    class TestMyRuntime(RuntimeContract):
        @pytest.fixture
        def runtime_case(self):
            return "my_runtime", {}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.runtime import make_runtime, random_inputs
from devices.testing.models import conv_model
from search_spaces.errors import InputError

Case = tuple[str, dict[str, Any]]


class RuntimeContract:
    """The promises of :class:`~devices.runtime.Runtime`.

    Attributes of a subclass:
        A fixture ``runtime_case`` gives the registered name and the parameters.
    """

    @pytest.fixture
    def runtime_case(self) -> tuple[str, dict[str, Any]]:
        """Registered name and parameters of the runtime under test."""
        raise NotImplementedError("give the suite a fixture 'runtime_case'")

    def test_outputs_equal_those_of_the_reference_evaluator(
        self, runtime_case: Case, tmp_path: Path
    ) -> None:
        """A batch through a convolution gives what ONNX's own evaluator gives."""
        reference = pytest.importorskip("onnx.reference")
        path = conv_model(tmp_path / "net.onnx")
        name, parameters = runtime_case
        session = make_runtime(name, {"batch": 2, **parameters}).load(path)
        assert [spec.shape for spec in session.inputs] == [(2, 3, 8, 8)]
        inputs = random_inputs(session.inputs, 3)
        (expected,) = reference.ReferenceEvaluator(str(path)).run(None, {"x": inputs[0]})
        (output,) = session(*inputs)
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)

    def test_a_bound_call_can_be_repeated(self, runtime_case: Case, tmp_path: Path) -> None:
        """What :meth:`Session.bind` returns is called once a sample."""
        session = make_runtime(*runtime_case).load(conv_model(tmp_path / "net.onnx"))
        call = session.bind(*random_inputs(session.inputs, 0))
        call()
        call()

    def test_parameters_build_an_equal_runtime(self, runtime_case: Case) -> None:
        """A child process and a board build the runtime from its parameters."""
        runtime = make_runtime(*runtime_case)
        again = make_runtime(runtime.name, runtime.parameters())
        assert again.describe() == runtime.describe()
        assert runtime.version

    def test_a_file_that_is_no_model(self, runtime_case: Case, tmp_path: Path) -> None:
        """A file that cannot be read is named by an InputError."""
        path = tmp_path / "broken.onnx"
        path.write_bytes(b"not a model")
        with pytest.raises(InputError, match=r"broken\.onnx"):
            make_runtime(*runtime_case).load(path)

    def test_a_missing_file(self, runtime_case: Case, tmp_path: Path) -> None:
        """A file that is not there is named by an InputError."""
        with pytest.raises(InputError, match=r"absent\.onnx"):
            make_runtime(*runtime_case).load(tmp_path / "absent.onnx")

    def test_a_fixed_batch_is_not_changed_silently(
        self, runtime_case: Case, tmp_path: Path
    ) -> None:
        """Another batch than the file's is refused; its latency would be another's."""
        name, parameters = runtime_case
        runtime = make_runtime(name, {**parameters, "batch": 8})
        with pytest.raises(InputError, match="open batch axis"):
            runtime.load(conv_model(tmp_path / "net.onnx", batch=1))

    @pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2"])
    def test_threads_must_be_a_positive_whole_number(self, runtime_case: Case, bad: Any) -> None:
        """A wrong number of threads is refused when the runtime is built."""
        name, parameters = runtime_case
        with pytest.raises(InputError, match="threads"):
            make_runtime(name, {**parameters, "threads": bad})
