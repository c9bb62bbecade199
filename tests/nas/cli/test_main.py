import errno
import json
import os
import signal
import subprocess
import sys
import types
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from typer.testing import CliRunner

import nas.stages
from nas.cli.main import app
from search_spaces.errors import EnvironmentProblem, InfeasibleError, InputError, MissingExtraError

GOOD = "name: a\ndata: {name: digits}\nspace: {preset: 8x8}\n"


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return run


@pytest.fixture
def job(tmp_path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def pipeline(monkeypatch):
    """Stand in for the pipeline: record the calls, or raise what is asked for."""
    stand_in = types.ModuleType("nas.stages.pipeline")
    stand_in.calls = []
    stand_in.error = None

    def record(*arguments, **keywords):
        stand_in.calls.append((arguments, keywords))
        if stand_in.error is not None:
            raise stand_in.error

    stand_in.run = stand_in.resume = record
    monkeypatch.setitem(sys.modules, "nas.stages.pipeline", stand_in)
    monkeypatch.setattr(nas.stages, "pipeline", stand_in, raising=False)
    return stand_in


def test_validate_sums_up_a_good_job(call, job):
    result = call("validate", job)
    assert result.exit_code == 0
    assert "OK" in result.stdout
    assert "2361471489403697233920 architectures" in result.stdout


def test_validate_warns_of_a_front_that_is_not_trained_on_its_own(call, job):
    assert "keep weights" not in call("validate", job).stdout
    job.write_text(GOOD + "supernet: {epochs: 4}\n")
    assert "keep weights of the supernet" in call("validate", job).stdout
    job.write_text(GOOD + "supernet: {epochs: 4}\nfinetune: {epochs: 0}\n")
    assert "keep weights" not in call("validate", job).stdout  # asked for


def test_validate_tells_which_devices_this_machine_cannot_measure(call, job, monkeypatch):
    import nas.job.sections.devices

    def make_runtime(name, parameters):
        if name == "litert":
            raise MissingExtraError("ai-edge-litert", "litert")

    monkeypatch.setattr(nas.job.sections.devices, "make_runtime", make_runtime)
    board = "{name: board, runtime: litert}"
    job.write_text(GOOD + f"devices: [{{name: here}}, {board}]\n")
    result = call("validate", job)
    assert result.exit_code == 0  # the file is right, and another machine may have it
    (told,) = [line for line in result.stdout.splitlines() if "cannot be measured here" in line]
    assert "device board " in told
    assert "edge-nas[litert]" in told
    # What a board behind a hub has is known there.
    Path("token").write_text("t" * 32)
    job.write_text(
        GOOD + "devices: [{name: b, runtime: litert, hub: 'https://h:1', token_file: token}]\n"
    )
    assert "cannot be measured" not in call("validate", job).stdout


def test_validate_tells_every_mistake_on_a_line_of_its_own(call, job):
    job.write_text(GOOD + "sede: 1\nthreads: many\n" + "x" * 300 + ": 1\n")
    result = call("validate", job)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 3  # however long, a diagnostic is never wrapped
    for line, number in zip(lines, (4, 5, 6), strict=True):
        assert line.startswith(f"{job}:{number}:")


def test_run_hands_the_job_to_the_pipeline(call, job, pipeline, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    result = call("run", job, "--output", "out", "--seed", "9", "--measurements", store)
    assert result.exit_code == 0
    ((given, folder), keywords) = pipeline.calls[0]
    assert (given.name, given.seed, folder) == ("a", 9, Path("out"))
    assert keywords["measurements"] == store
    call("run", job)
    assert pipeline.calls[1][0][1] == Path("runs/a")


def test_a_bad_job_never_reaches_the_pipeline(call, job, pipeline):
    job.write_text("name: a\n")
    assert call("run", job).exit_code == 2
    assert call("run", job, "--measurements", "none").exit_code == 2
    assert pipeline.calls == []


def test_a_dry_run_writes_nothing(call, job, pipeline, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    job.write_text(GOOD + "budget: null\n")
    result = call("run", job, "--dry-run")
    assert result.exit_code == 0
    for part in ("exactly 2361471489403697233920 architectures", "evaluations: 200", "front.csv",
                 "estimated time: "):  # fmt: skip
        assert part in result.stdout
    assert sorted(tmp_path.rglob("*")) == before
    assert pipeline.calls == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("bad value 3"), 2, "error: bad value 3"),
        (InfeasibleError("the closest needs 3.1 ms"), 3, "error: the closest needs 3.1 ms"),
        (EnvironmentProblem("no such device"), 4, "error: no such device"),
        (MissingExtraError("torch", "search"), 4, "pip install 'edge-nas[search]'"),
        (ModuleNotFoundError("no torch", name="torch"), 4, "torch is not installed"),
        (OSError(errno.ENOSPC, "full", "/run/x"), 4, "no space left on the disk: /run/x"),
        (PermissionError(errno.EACCES, "denied", "/run/x"), 4, "no permission: /run/x"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_every_kind_of_error_has_its_exit_code(call, job, pipeline, error, code, message):
    pipeline.error = error
    result = call("run", job)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interruption_names_the_run_to_go_on_with_if_there_is_one(call, job, pipeline, tmp_path):
    pipeline.error = KeyboardInterrupt()
    assert f"nas resume {tmp_path}" in call("resume", tmp_path).stderr


def test_a_full_disk_names_the_run_to_go_on_with_only_if_there_is_one(
    call, job, pipeline, tmp_path
):
    pipeline.error = OSError(errno.ENOSPC, "full", "from", None, "to")
    told = call("resume", tmp_path)
    assert told.exit_code == 4 and "on the disk: to; make room and repeat" in told.stderr
    (tmp_path / "manifest.json").write_text("{}")
    told = call("resume", tmp_path)
    assert told.exit_code == 4 and f"go on with: nas resume {tmp_path}" in told.stderr
    assert "nas resume" not in call("run", job, "--output", tmp_path / "not begun").stderr


def test_an_error_of_ours_is_not_hidden(call, job, pipeline):
    pipeline.error = ZeroDivisionError("a fault in the program")
    result = call("run", job)
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("command", ["resume", "report", "export"])
def test_commands_on_a_run_that_does_not_exist(call, command):
    result = call(command, "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr


def test_resume_goes_on_with_the_folder(call, pipeline, tmp_path):
    assert call("resume", tmp_path).exit_code == 0
    assert pipeline.calls[0][0] == (tmp_path,)


def test_schema_is_json(call):
    schema = json.loads(call("schema").stdout)
    assert schema["required"] == ["name", "data"]


@pytest.mark.parametrize("data", ["digits", "fashion_mnist", "cifar10", "cifar100", "image_folder"])
@pytest.mark.parametrize("latency", ["0", "2.5"])
def test_init_writes_a_valid_job(call, tmp_path, data, latency):
    folder = tmp_path / "my data: #1"
    folder.mkdir()
    arguments = ["init", "new.yaml", "--data", data, "--latency-ms", latency]
    if data != "digits":
        arguments += ["--path", str(folder)]
    written = call(*arguments)
    assert written.exit_code == 0
    # Nothing is in the folder yet, so the job is for photographs of any size, and says so.
    assert ("class folders" in written.stderr) == (data == "image_folder")
    assert call("validate", "new.yaml").exit_code == 0
    again = call(*arguments)
    assert again.exit_code == 2 and "exists" in again.stderr


def test_init_refuses_what_it_has_no_template_for(call, tmp_path):
    assert call("init", "--data", "imagenet").exit_code == 2
    assert call("init", "--data", "cifar10").exit_code == 2
    gone = call("init", "--data", "image_folder", "--path", "nowhere")
    assert gone.exit_code == 2 and "nowhere does not exist" in gone.stderr
    assert list(tmp_path.iterdir()) == []


def test_init_says_what_it_saw_and_how_options_are_given(call, tmp_path):
    folder = tmp_path / "signals"
    folder.mkdir()
    rows = [f"{i % 3},{i % 4},{'ab'[i % 2]}" for i in range(20)]
    (folder / "train.csv").write_text("\n".join(["x,y,state", *rows]))
    lost = call("init", "new.yaml", "--path", "signals")
    assert lost.exit_code == 2 and "given here as --option NAME=VALUE" in lost.stderr
    written = call("init", "new.yaml", "--path", "signals", "--option", "targets=[state]")
    assert written.exit_code == 0
    assert "20 signals of 1 channel, 2 values each; 2 classes" in written.stdout
    assert call("validate", "new.yaml").exit_code == 0
    refused = call("init", "other.yaml", "--data", "digits", "--option", "targets=[state]")
    assert refused.exit_code == 2 and "digits has no options" in refused.stderr


def test_init_writes_no_job_that_does_not_know_what_is_normal(call, tmp_path):
    folder = tmp_path / "signals"
    folder.mkdir()
    rows = [",".join(["1.5", "0.5"] * 8 + [("worn", "fine")[i % 2]]) for i in range(20)]
    head = ",".join([*(f"v{i}" for i in range(16)), "label"])
    (folder / "train.csv").write_text("\n".join([head, *rows]))
    asked = ("init", "new.yaml", "--path", "signals", "--task", "anomaly_detection")
    lost = call(*asked)
    assert lost.exit_code == 2 and not (tmp_path / "new.yaml").exists()
    assert "'fine', 'worn'" in lost.stderr and "given here as --normal CLASS" in lost.stderr
    wrong = call(*asked, "--normal", "good")
    assert wrong.exit_code == 2 and "none called 'good'" in wrong.stderr
    assert call(*asked, "--normal", "fine").exit_code == 0
    assert call("validate", "new.yaml").exit_code == 0
    (tmp_path / "new.yaml").write_text(
        (tmp_path / "new.yaml").read_text().replace("task: anomaly_detection", "")
    )
    told = call("validate", "new.yaml")
    line = (tmp_path / "new.yaml").read_text().split("normal:")[0].count("\n") + 1
    assert told.exit_code == 2 and f"new.yaml:{line}:" in told.stderr
    assert "learns from all classes" in told.stderr


def test_init_does_not_take_a_damaged_picture_for_an_empty_folder(call, tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.png").write_bytes(b"no picture")
    told = call("init", "new.yaml", "--path", "photos")
    assert told.exit_code == 2 and "1.png: cannot be read as an image" in told.stderr
    assert not (tmp_path / "new.yaml").exists()


def test_doctor_names_versions_and_runtimes(call):
    result = call("doctor", "--quick")
    assert result.exit_code == 0
    for part in ("python", "torch", "onnxruntime", "memory"):
        assert part in result.stdout


def test_unknown_commands_and_options_are_bad_input(call, job):
    assert call("rnu", job).exit_code == 2
    assert call("run", job, "--sed", "1").exit_code == 2
    assert call("run").exit_code == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_told_to_end_says_how_to_go_on(tmp_path, number, code):
    program = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from nas.cli.main import resumable\n"
        "begun = Path('begun')\n"
        "begun.mkdir()\n"
        "with resumable(begun):\n"
        "    try:\n"
        "        os.kill(os.getpid(), int(sys.argv[1]))\n"
        "        signal.pause()\n"
        "    finally:\n"
        "        Path('closed').touch()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(int(number))],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code
    assert "go on with: nas resume begun" in done.stderr
    # What the run holds is closed as after Ctrl-C, which death by the signal did not.
    assert (tmp_path / "closed").exists()


def test_help_documents_the_exit_codes(call):
    assert "130 interrupted" in " ".join(call("--help").stdout.split())


def test_the_script_is_quick_to_start_and_loads_no_torch(job):
    code = (
        "import sys; from nas.cli.main import main; sys.argv = ['nas', 'validate', sys.argv[1]]\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(job)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_stops_early_is_no_error():
    command = f"{sys.executable} -c 'from nas.cli.main import main; main()' schema | head -c 10"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (len(done.stdout), done.stderr) == (10, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_job_that_must_not_be_read(call, job):
    job.chmod(0)
    result = call("validate", job)
    assert result.exit_code == 4
    assert "no permission" in result.stderr


def test_import_nas_offers_the_api_lazily():
    heavy = "{'torch', 'pydantic', 'numpy', 'importlib.metadata'}"
    code = f"import sys, nas; assert not {heavy} & set(sys.modules)"
    code += "; import nas.cli.main; assert not {'torch', 'pydantic', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in nas.__all__:
        assert getattr(nas, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nas.nothing


def test_the_shell_completes_commands():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "nas")],
        env={**os.environ, "_NAS_COMPLETE": "complete_bash", "COMP_WORDS": "nas va",
             "COMP_CWORD": "1"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["validate"]


def test_every_command_and_every_option_says_what_it_does():
    import typer

    def walk(command, words):
        yield words, command
        names = command.list_commands(None) if hasattr(command, "list_commands") else ()
        for name in names:
            yield from walk(command.get_command(None, name), [*words, name])

    for words, command in walk(typer.main.get_command(app), ["nas"]):
        assert len((command.help or "").split()) >= 4, f"{' '.join(words)} has no help"
        dumb = [p.name for p in command.params if p.param_type_name == "option" and not p.help]
        assert dumb == [], f"{' '.join(words)} does not explain these options"


def test_validate_warns_of_a_limit_out_of_reach(call, tmp_path):
    text = GOOD + "search: {constraints: {weights_kib: {max: 0.001}, macs: {min: 1e12}}}\n"
    (tmp_path / "job.yaml").write_text(text)
    result = call("validate", "job.yaml")
    assert result.exit_code == 0
    assert "warning: weights_kib <= 0.001, but the smallest" in result.stdout
    assert "warning: macs >= 1e+12, but the largest" in result.stdout
    (tmp_path / "job.yaml").write_text(GOOD)
    assert "warning" not in call("validate", "job.yaml").stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "search: {constraints: {accuracy: {min: 95}}}",
            "job.yaml:4:40: search.constraints.accuracy.min: accuracies are 0 to 1; for 95 % "
            "write 0.95",
        ),
        ("search: {objectives: accuracy}", "'accuracy' is not a list; write [accuracy]"),
        ("supernet: {epoch: 3}", "did you mean 'epochs'?"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(call, tmp_path, text, told):
    (tmp_path / "job.yaml").write_text(GOOD + text + "\n")
    result = call("validate", "job.yaml")
    assert result.exit_code == 2 and told in result.stderr


def test_a_misspelt_preset_is_recognised(call, tmp_path):
    (tmp_path / "job.yaml").write_text(GOOD.replace("preset", "presett"))
    assert "did you mean 'preset'?" in call("validate", "job.yaml").stderr


def test_a_folder_as_table_of_known_devices_is_no_missing_file(call, tmp_path):
    (tmp_path / "older").mkdir()
    path = tmp_path / "job.yaml"
    path.write_text(
        "data: {name: digits}\nspace: {name: mobilenet, preset: 8x8}\n"
        "latency: {known_devices: older}\n"
    )
    result = call("validate", path)
    assert result.exit_code == 2
    assert "job.yaml:3:" in result.stderr and "older is not a file" in result.stderr


def test_a_lack_of_permission_is_told_without_an_option_the_command_may_not_have(
    call, pipeline, tmp_path
):
    pipeline.error = PermissionError(errno.EACCES, "denied", "/run/.lock")
    assert "--output" not in call("resume", tmp_path).stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 4),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate "
                      "memory: you tried to allocate 400000000 bytes"), 4),
        (RuntimeError("can't start new thread"), 4),
        (RuntimeError("std::bad_alloc"), 4),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), 4),
        (RuntimeError("something else"), 1),
    ],
)  # fmt: skip
def test_memory_that_runs_out_is_no_traceback(monkeypatch, error, code):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("nas.job.check.load_job", fails)
    done = CliRunner().invoke(app, ["validate", "job.yaml"])
    assert done.exit_code == code
    assert ("memory ran out" in done.stderr) == (code == 4)
