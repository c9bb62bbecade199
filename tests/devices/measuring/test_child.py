import os
import signal
import subprocess
import sys
import time

import pytest

from devices.measuring.child import ChildSampler, with_reference
from devices.measuring.measure import measure
from devices.measuring.protocol import Protocol
from devices.measuring.sampling import REFERENCE, Block, Failure
from devices.runtime import make_runtime
from search_spaces.errors import EnvironmentProblem

QUICK = Protocol(
    processes=2,
    runs=5,
    min_sample_ms=0.1,
    warmup_window_ms=1.0,
    warmup_max_s=0.05,
    retries=0,
    # A shared test machine is no quiet one: only what is injected may be found.
    max_interval=None,
    max_drift=None,
    max_spread=None,
    max_iqr=None,
    max_slowdown=None,
    max_starvation=None,
    max_outlier_share=None,
    warmup_tolerance=100.0,
)

#: A runtime in a module of its own, as a third party would ship it.
PLUGIN = """
import os, pathlib, signal, sys, time
import numpy as np
from devices.runtime import RUNTIMES, Runtime, Session, TensorSpec

class Text(Session):
    inputs = (TensorSpec("x", (1,), "float32"),)
    def __init__(self, action):
        self.action = action
    def __call__(self, *arrays):
        if self.action == "crash":
            print("about to fail", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.action in ("hang", "desert"):
            child = os.fork()  # a helper process, which must die with the group
            if child == 0:
                os.closerange(0, 100)
                time.sleep(600)
            pathlib.Path(os.environ["HELPER_PID"]).write_text(str(child))
            if self.action == "desert":
                os._exit(7)
            time.sleep(600)
        if self.action == "eat":
            np.ones(2**30, dtype=np.float64)
        if self.action == "print":
            os.write(1, b"noise of a native library\\n")
        return arrays

@RUNTIMES.register("scripted")
class Scripted(Runtime):
    name = "scripted"
    version = "1"
    def load(self, path):
        return Text(path.read_text())
"""


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """A runtime whose model files say how they misbehave, and a maker of such files."""
    from devices.runtime import RUNTIMES

    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "scripted_runtime.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("HELPER_PID", str(tmp_path / "helper.pid"))
    monkeypatch.delitem(sys.modules, "scripted_runtime", raising=False)
    monkeypatch.setattr(RUNTIMES, "_parts", dict(RUNTIMES._parts))
    import scripted_runtime

    def model(action):
        path = tmp_path / f"{action}.txt"
        path.write_text(action)
        return path

    return scripted_runtime.Scripted(), model


def test_onnx_models_are_measured_in_children(make_model):
    models = [make_model(f"m{c}.onnx", channels=c) for c in (2, 4)]
    results = measure(models, make_runtime("onnxruntime", {"batch": 2}), QUICK)
    for result in results:
        assert result.reasons == ()
        assert 0 < result.low_ms <= result.latency_ms <= result.high_ms
        assert [len(samples) for samples in result.samples_ms] == [5, 5]
        assert result.conditions["kernel"]
        assert len(result.conditions["before"]) == len(result.conditions["after"]) == 2
        if hasattr(os, "sched_setaffinity"):
            assert all(len(cores) == 1 for cores in result.conditions["cores"])


def test_a_crash_costs_only_its_model(scripted):
    runtime, model = scripted
    models = [model("fine"), model("crash"), model("other")]
    fine, crash, other = measure(models, runtime, QUICK)
    assert fine.valid and other.valid
    assert crash.reasons == ("process-crashed",)
    assert "SIGSEGV" in crash.detail and "about to fail" in crash.detail


def test_a_hanging_model_is_killed_with_its_helpers(scripted, tmp_path):
    runtime, model = scripted
    protocol = Protocol(**{**QUICK.to_json(), "deadline_s": 1.0})
    hang, fine = measure([model("hang"), model("fine")], runtime, protocol, reference=model("ok"))
    assert fine.valid
    assert hang.reasons == ("deadline-passed",)
    wait_for(lambda: not alive(int((tmp_path / "helper.pid").read_text())))


def test_a_child_that_leaves_a_helper_behind(scripted, tmp_path):
    runtime, model = scripted
    (desert,) = measure([model("desert")], runtime, QUICK)
    assert desert.reasons == ("process-crashed",) and "exit code 7" in desert.detail
    wait_for(lambda: not alive(int((tmp_path / "helper.pid").read_text())))


def test_a_model_over_the_memory_limit_is_refused(scripted):
    runtime, model = scripted
    protocol = Protocol(**{**QUICK.to_json(), "memory_limit_mib": 2048})
    eat, fine = measure([model("eat"), model("fine")], runtime, protocol, reference=model("ok"))
    assert fine.valid and fine.conditions["memory_limited"]
    assert eat.reasons == ("memory-limit",)


@pytest.mark.parametrize("nice", [None, 5])
def test_the_priority_that_was_granted_is_recorded(scripted, nice):
    runtime, model = scripted
    own = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = None if nice is None else min(19, own + nice)
    protocol = Protocol(**{**QUICK.to_json(), "nice": wanted})
    (result,) = measure([model("fine")], runtime, protocol)
    granted = result.conditions["nice"]
    if wanted is None:
        # As early as it gets: where the tests have the privilege, -15.
        assert granted in ([own] * 2, [-15] * 2)
    else:
        assert granted == [wanted] * 2


def test_what_a_library_prints_does_not_disturb_the_messages(scripted):
    runtime, model = scripted
    (result,) = measure([model("print")], runtime, QUICK)
    assert result.valid


def test_an_interpreter_that_is_not_there(make_model):
    with pytest.raises(EnvironmentProblem, match="/no/such/python"):
        measure(
            [make_model()],
            make_runtime("onnxruntime"),
            QUICK,
            sampler=ChildSampler(python="/no/such/python"),
        )


def test_a_child_that_cannot_start_says_why(make_model, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(EnvironmentProblem, match=r"exit 3.*no such library"):
        measure(
            [make_model()],
            make_runtime("onnxruntime"),
            QUICK,
            sampler=ChildSampler(python=str(broken)),
        )


def test_the_child_dies_with_a_killed_parent(scripted, tmp_path):
    _, model = scripted
    path = model("hang")
    script = (
        "import sys; sys.path = sys.argv[3:]\n"
        "import pathlib, scripted_runtime\n"
        "from devices.measuring.measure import measure\n"
        "measure([pathlib.Path(sys.argv[1])], scripted_runtime.Scripted())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(path), "", *sys.path])
    helper = tmp_path / "helper.pid"
    try:
        wait_for(lambda: helper.exists() and helper.read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not alive(int(helper.read_text())))


def test_the_worker_loads_no_torch_and_no_more_than_it_needs():
    code = (
        "import sys, devices.measuring.worker, devices.measuring.sampling\n"
        "import devices.measuring.measure, devices.device, devices.runtimes.onnxruntime\n"
        "needless = {'torch', 'onnx', 'pandas', 'scipy', 'pydantic', 'devices.runtimes.command'}\n"
        "print(sorted(needless & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_blocks_get_the_nearest_looks_at_the_reference():
    def block(ms):
        return Block(1, (round(ms * 1e6),) * 3, settled=True, finite=True, processor_share=1.0)

    done = [
        (REFERENCE, block(1.0)),
        (0, block(5.0)),
        (REFERENCE, block(1.1)),
        (1, block(6.0)),
        (2, Failure("model-failed", "")),
        (REFERENCE, block(1.2)),
        (3, block(7.0)),
    ]
    found = with_reference(done)
    assert sorted(found) == [0, 1, 2, 3]
    assert found[0].reference_ms == pytest.approx((1.0, 1.1))
    assert found[1].reference_ms == pytest.approx((1.1, 1.2))
    assert found[3].reference_ms is None


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
