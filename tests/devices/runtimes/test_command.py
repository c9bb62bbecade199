"""A configured program as a runtime: arguments, output, failures, and what a job may not do."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from devices.measuring.measure import measure
from devices.measuring.protocol import Protocol
from devices.measuring.sampling import Failure
from devices.runtime import make_runtime
from devices.runtimes.command import (
    COMMANDS,
    CommandConfig,
    arguments_for,
    parse_latencies,
    read_command_configs,
    run_command,
)
from search_spaces.errors import EnvironmentProblem, InputError

QUICK = Protocol(processes=2, runs=5, retries=0, pin=False)
TIMER = """
import json, pathlib, sys
model, runs = pathlib.Path(sys.argv[1]), int(sys.argv[2])
base = float(model.read_text())
print("loading", model.name)
for i in range(runs):
    print(json.dumps({"latency_ms": base + 0.001 * (i % 3)}))
"""


def config(**changes) -> CommandConfig:
    values = {
        "name": "board",
        "arguments": [sys.executable, "-c", TIMER, "{model}", "{runs}"],
        "version": "7",
        "formats": [".onnx"],
    }
    return CommandConfig.model_validate(values | changes)


@pytest.fixture
def configured():
    COMMANDS.configure({"board": config()})
    yield
    COMMANDS.configure({})


def models(tmp_path, *latencies):
    paths = []
    for i, latency in enumerate(latencies):
        paths.append(tmp_path / f"m {i};$(touch x).onnx")
        paths[-1].write_text(str(latency))
    return paths


def test_models_are_measured_by_the_program(configured, tmp_path):
    runtime = make_runtime("command", {"tool": "board", "threads": 2})
    slow, fast = measure(models(tmp_path, 20.0, 3.0), runtime, QUICK)
    assert slow.valid and fast.valid
    assert slow.latency_ms == pytest.approx(20.001)
    assert fast.latency_ms == pytest.approx(3.001)
    assert fast.runtime_version == "7" and len(fast.samples_ms) == 2
    assert fast.parameters["tool"] == "board"
    assert not (tmp_path / "x").exists() and not os.path.exists("x")


def test_a_tool_that_is_not_configured_here(configured):
    with pytest.raises(EnvironmentProblem, match=r"configured: board"):
        make_runtime("command", {"tool": "other"})


def test_a_job_cannot_give_arguments(configured):
    with pytest.raises(InputError, match="no parameter 'arguments'"):
        make_runtime("command", {"tool": "board", "arguments": ["rm"]})


def test_placeholders_are_filled_inside_their_argument(configured, tmp_path):
    runtime = make_runtime("command", {"tool": "board", "threads": 3, "batch": 4})
    given = config(arguments=["tool", "--model={model}", "-n{runs}", "{threads}x{batch}"])
    path = tmp_path / "a {runs} b.onnx"
    found = arguments_for(given, runtime, path, 9)
    assert found == ["tool", f"--model={path}", "-n9", "3x4"]


@pytest.mark.parametrize(
    ("changes", "text", "expected"),
    [
        ({}, '{"latency_ms": 2}\nnoise\n{"latency_ms": [1.5, 0.5]}', [2e6, 1.5e6, 5e5]),
        ({}, '{"other": 1}\n{broken\n{"latency_ms": 1}', [1e6]),
        (
            {"output": "regex", "pattern": r"avg=\s*([\d.]+)", "unit": "us"},
            "avg= 12.5 max=3\navg=7",
            [12500, 7000],
        ),
    ],
)
def test_output_is_read(changes, text, expected):
    assert parse_latencies(config(**changes), text) == expected


@pytest.mark.parametrize(
    "text", ["", '{"latency_ms": -1}', '{"latency_ms": "x"}', '{"latency_ms": null}']
)
def test_output_without_a_latency_is_refused(text):
    with pytest.raises(InputError, match="printed"):
        parse_latencies(config(), text)


@pytest.mark.parametrize(
    ("program", "deadline_s", "kind", "detail"),
    [
        ("import sys; sys.exit('no such layer')", 60, "model-failed", "no such layer"),
        ("import os; os.kill(os.getpid(), 11)", 60, "process-crashed", "-11"),
        ("import time; time.sleep(600)", 0.5, "deadline-passed", "0.5"),
    ],
)
def test_failures(program, deadline_s, kind, detail):
    given = config(arguments=[sys.executable, "-c", program, "{model}"], deadline_s=deadline_s)
    outcome = run_command(given, [a.replace("{model}", "m") for a in given.arguments])
    assert isinstance(outcome, Failure) and outcome.kind == kind and detail in outcome.detail


def test_what_the_program_started_does_not_outlive_it(tmp_path):
    program = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(600)']); print(p.pid)"
    )
    given = config(arguments=[sys.executable, "-c", program, "{model}"])
    pid = int(run_command(given, given.arguments[:3]))
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    pytest.fail("the grandchild still runs")


def test_another_format_is_refused_before_the_program_runs(configured, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_text("1")
    (found,) = measure([path], make_runtime("command", {"tool": "board"}), QUICK)
    assert not found.valid and "takes .onnx" in found.detail and np.isnan(found.latency_ms)


def test_a_program_that_is_not_there():
    given = config(arguments=["/no/such/tool", "{model}"])
    with pytest.raises(EnvironmentProblem, match="cannot start"):
        run_command(given, given.arguments)


def test_every_mistake_of_a_configuration_is_named():
    value = [
        {"name": "a", "arguments": ["run", "{modle}"]},
        {"name": "b", "arguments": ["run"]},
        {"name": "c", "arguments": ["run", "{model}"], "output": "regex", "pattern": "(a)(b)"},
        {"name": "d", "arguments": ["run", "{model}"], "shell": True},
        {"name": "e", "arguments": ["run", "{model}"]},
        {"name": "e", "arguments": ["run", "{model}"]},
    ]
    with pytest.raises(InputError) as caught:
        read_command_configs(value, source="agent.yaml")
    text = str(caught.value)
    for word in ("modle", "no argument holds {model}", "2 groups", "shell", "'e' occurs twice"):
        assert word in text
    assert len(text.splitlines()) == 5
    assert list(read_command_configs(value[-1:], source="agent.yaml")) == ["e"]
    with pytest.raises(InputError, match="must be a list"):
        read_command_configs({"name": "a"}, source="agent.yaml")
