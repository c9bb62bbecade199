import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from devices.measuring.protocol import Protocol
from nas.job.check import load_job
from nas.job.registries import REGISTRIES, registry_for
from nas.job.schema import Job, job_schema, job_space
from nas.job.sections.protocol import ProtocolConfig
from nas.job.sections.search import check_search
from nas.job.yaml_source import DiagnosticsError

ROOT = Path(__file__).parents[3]
GOOD = "name: a\ndata: {name: digits}\nspace: {preset: 8x8}\n"


@pytest.fixture
def check(tmp_path):
    def run(text: str) -> list[str]:
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DiagnosticsError) as caught:
            load_job(path)
        return str(caught.value).replace(f"{path}:", "").splitlines()

    return run


@pytest.fixture
def load(tmp_path):
    def run(text: str) -> Job:
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return load_job(path)

    return run


def test_a_short_job_has_defaults(load):
    job = load(GOOD)
    assert job.seed == 0
    assert [d.name for d in job.devices] == ["cpu"]
    assert [str(goal.metric) for goal in job.objectives()] == ["accuracy", "latency_ms[cpu]"]
    assert job.constraints() == []
    assert job.run_folder() == Path("runs/a")


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(check):
    told = check(
        "name: 'my job'\n"
        "sede: 3\n"
        "accelerator: gpu\n"
        "data: {name: digit, validation: 1.5, pat: x}\n"
        "space: {name: mobilenet, preset: 28x28, weight_bit: [2]}\n"
        "supernet:\n"
        "  epochs: eight\n"
        "  init_from: nope.safetensors\n"
        "devices:\n"
        "  - {name: cpu}\n"
        "  - {name: cpu, runtime: onxruntime, threads: 0}\n"
        "search:\n"
        "  constraints:\n"
        "    latency_ms: {gpu: {max: 2}, cpu: {min: 3, max: 1}}\n"
        "  evaluations: 10\n"
        "  initial: 20\n"
        "  front_size: true\n"
    )
    places = [line.partition(": ")[0] for line in told]
    assert places == sorted(places, key=lambda place: tuple(map(int, place.split(":"))))
    assert places[:6] == ["1:7", "2:1", "3:14", "4:14", "4:33", "4:38"]
    text = "\n".join(told)
    for part in (
        "unknown key 'sede'; did you mean 'seed'?",
        "accelerator: 'gpu' is not one of auto, cpu, cuda",
        "unknown data source 'digit'; did you mean 'digits'?",
        "unknown key 'pat' in data; did you mean 'path'?",
        "unknown parameter 'weight_bit'",
        "supernet.epochs: 'eight' is not a number",
        "nope.safetensors does not exist",
        "'cpu' is the name of device 0 too",
        "unknown runtime 'onxruntime'; did you mean 'onnxruntime'?",
        "devices.1.threads: 0 must be at least 1",
        "there is no device 'gpu'",
        "min 3 is greater than max 1",
        "search.evaluations: 10 must be at least search.initial (20)",
        "search.front_size: true is not a whole number",
    ):
        assert part in text
    assert len(told) == 16


@pytest.mark.parametrize(
    ("extra", "place", "message"),
    [
        ("supernet: {epochs: 1, minutes: 2}", "4:32", "give either epochs or minutes"),
        ("supernet: {schedule: sandwhich}", "4:22", "did you mean 'sandwich'?"),
        ("supernet: {focus: {run: nowhere}}", "4:25", "is no run folder"),
        ("supernet: {bit_odds: {weights: {2: 0}}}", "4:36", "must be greater than 0"),
        ("supernet: {learning_rate: .inf}", "4:27", "not a finite number"),
        ("supernet: {bits_schedule: [{start: 0.2, bits: [8]}]}", "4:36", "must start at 0"),
        (
            "supernet: {bits_schedule: [{start: 0, bits: [8]}, {start: 0, bits: [4]}]}",
            "4:59",
            "must be greater than the stage before it",
        ),
        ("devices: []", "4:10", "the list is empty"),
        ("devices: cpu", "4:10", "'cpu' is not a list"),
        ("devices: [{}]", "4:11", "missing key 'name' in devices.0"),
        ("devices: [{name: a, options: {thread: 1}}]", "4:39", "has no parameter 'thread'"),
        ("protocol: {processes: 1}", "4:23", "at least 2"),
        ("search: {objectives: [accurcy]}", "4:23", "did you mean 'accuracy'?"),
        ("search: {objectives: [accuracy, accuracy]}", "4:33", "given twice"),
        ("search: {objectives: ['latency_ms[gpu]']}", "4:23", "there is no device 'gpu'"),
        ("search: {objectives: ['macs[cpu]']}", "4:23", "does not depend on a device"),
        ("search: {objectives: ['latency_ms[cpu']}", "4:23", "not of the form"),
        ("search: {budgets: {weight_kib: [8]}}", "4:32", "did you mean 'weights_kib'?"),
        ("search: {budgets: {weights_kib: [8, 8]}}", "4:37", "given twice"),
        ("search: {budgets: {accuracy: [0.9]}}", "4:30", "a budget limits a cost"),
        ("search: {budgets: {weights_kib: [8, 9]}, front_size: 1}", "4:19", "a front has 1"),
        (
            "search: {budgets: {macs: [9]}, constraints: {macs: {max: 8}}}",
            "4:26",
            "above the bound of search.constraints, 8",
        ),
        ("search: {strategy: evolutoin}", "4:20", "did you mean 'evolution'?"),
        ("search: {constraints: {macs: {}}}", "4:30", "give min, max or both"),
        ("search: {constraints: {macs: {mx: 1}}}", "4:31", "did you mean 'max'?"),
        ("search: {constraints: {latency_ms: {max: 2.0}}}", "4:42", "latency belongs to a device"),
        ("search: {front_size: 300}", "4:22", "at most search.evaluations (200)"),
        ("task: image_clasification", "4:7", "did you mean 'image_classification'?"),
        ("name: b", "4:1", "key 'name' is given twice (first on line 1)"),
    ],
)
def test_one_mistake(check, extra, place, message):
    told = check(GOOD + extra + "\n")
    assert len(told) == 1
    assert told[0].startswith(f"{place}: ")
    assert message in told[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{}", "missing key 'name' in data"),
        ("null", "null is not a mapping"),
        ("{name: cifar10}", "cifar10 needs the folder"),
        ("{name: image_folder, path: nowhere}", "nowhere does not exist"),
        ("{name: fashion_mnist, download: true}", "in which folder the download"),
        ("{name: digits, channels: 2}", "2 is not one of 1, 3"),
        ("{name: digits, validation: 0}", "a share between 0 and 1"),
        ("{name: digits, validation: 1.0}", "such as 0.1, or a whole number of images"),
        ("{name: digits, validation: 2.5}", "such as 0.1, or a whole number of images"),
        ("{name: digits, download: 'yes'}", "'yes' is not true or false"),
    ],
)
def test_mistakes_of_the_data(check, data, message):
    told = check(f"name: a\nspace: {{preset: 8x8}}\ndata: {data}\n")
    assert len(told) == 1
    assert message in told[0]


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ("protocol: {processes: 1, runs: -3, max_drift: 0}", ["processes", "runs", "max_drift"]),
        (
            "devices: [{name: a, options: {thread: 1, graph_optimisation: 2}}]",
            ["'thread'", "'graph_optimisation'"],
        ),
    ],
)
def test_every_mistake_of_a_section_another_package_checks(check, section, parts):
    told = check(GOOD + section + "\n")
    assert len(told) == len(parts)
    assert all(part in line for part, line in zip(parts, told, strict=True))


def test_every_wrong_parameter_of_the_space(check):
    told = check(
        "name: a\ndata: {name: digits}\n"
        "space: {preset: 8x8, weight_bits: [9], kernel: [3], kernels: [3]}\n"
    )
    assert [line.partition(": ")[0] for line in told] == ["3:35", "3:48"]
    (line,) = check("name: a\ndata: {name: digits}\nspace: {preset: 9x9}\n")
    assert "'9x9'" in line


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "3"])
def test_a_job_must_be_a_mapping(check, text):
    (line,) = check(text)
    assert line.startswith("1:1: a job is a mapping")


def test_a_schedule_may_train_one_bit(load):
    job = load(
        "name: a\ndata: {name: digits}\n"
        "space: {name: mobilenet, preset: 8x8, weight_bits: [1, 8]}\n"
        "supernet:\n"
        "  quantizers: {weights: {default: lsq, 1: binary}}\n"
        "  bits_schedule: [{start: 0, bits: [8]}, {start: 0.5, bits: [8, 1]}]\n"
    )
    assert job.supernet.bits_schedule[1].bits == [8, 1]


def test_paths_are_relative_to_the_job(load, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "w.safetensors").touch()
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "manifest.json").touch()
    job = load(
        "name: a\ndata: {name: image_folder, path: pictures}\n"
        "supernet: {init_from: w.safetensors, focus: {run: older}}\n"
    )
    assert job.data.path == str(tmp_path / "pictures")
    assert job.supernet.focus.run == str(tmp_path / "older")
    assert job.supernet.init_from == str(tmp_path / "w.safetensors")


def test_changes_override_the_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(GOOD + "seed: 1\n")
    assert load_job(path, changes={"seed": 7}).seed == 7


def test_constraints_carry_bounds_directions_and_confidence(load):
    job = load(
        GOOD + "devices: [{name: a}, {name: b}]\n"
        "search:\n  confidence: 0.9\n  constraints:\n"
        "    latency_ms: {b: {max: 2}}\n    macs: {min: 10, max: 20}\n"
    )
    told = [(c.name, c.bound, c.upper, c.confidence) for c in job.constraints()]
    assert told == [
        ("latency_ms[b] max", 2.0, True, 0.9),
        ("macs min", 10.0, False, None),
        ("macs max", 20.0, True, None),
    ]
    assert [str(g.metric) for g in job.objectives()] == [
        "accuracy", "latency_ms[a]", "latency_ms[b]",
    ]  # fmt: skip


def test_a_resolved_job_is_a_job_again(load):
    job = load(GOOD + "search: {constraints: {macs: {max: 1e7}}}\n")
    assert Job.model_validate(json.loads(json.dumps(job.resolved()))) == job


def test_the_protocol_mirrors_the_one_that_is_measured_with(load):
    theirs = {f.name: f.default for f in dataclasses.fields(Protocol) if f.name != "seed"}
    ours = {name: field.default for name, field in ProtocolConfig.model_fields.items()}
    assert ours == theirs
    assert load(GOOD + "seed: 5\nprotocol: {runs: 7}\n").measurement_protocol() == Protocol(
        runs=7, seed=5
    )


def test_the_space_takes_overrides_and_the_data_s_sizes(load):
    job = load("name: a\ndata: {name: digits}\nspace: {preset: 8x8, weight_bits: [8]}\n")
    narrow, wide = job_space(job, outputs=3), job_space(load(GOOD))
    assert narrow.outputs == 3
    assert narrow.cardinality() < wide.cardinality()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.name
)
def test_published_jobs_are_valid(path):
    load_job(path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments" / "supernet").glob("*.yaml")), ids=lambda p: p.name
)
def test_jobs_that_begin_from_another_run_are_sound_but_for_that_run(path):
    try:
        load_job(path)
    except DiagnosticsError as error:
        found = [diagnostic.message for diagnostic in error.diagnostics]
        assert all("runs/" in message for message in found), found


def test_the_annotated_job_shows_every_key():
    shown = yaml.safe_load((ROOT / "experiments" / "annotated.yaml").read_text(encoding="utf-8"))

    def missing(model: type[BaseModel], value: dict, path: str) -> list[str]:
        lost = []
        for name, field in model.model_fields.items():
            here = f"{path}.{name}"
            if name not in value:
                lost.append(here)
                continue
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                lost += missing(inner, value[name], here)
        return lost

    assert missing(Job, shown, "job") == []
    device = Job.model_fields["devices"].annotation.__args__[0]
    assert missing(device, shown["devices"][0], "device") == []


def test_every_key_is_described_in_the_schema():
    schema = job_schema()
    undescribed = [
        f"{section}.{key}"
        for section, body in schema["$defs"].items()
        for key, value in body.get("properties", {}).items()
        if "description" not in value and "$ref" not in value and section != "Bound"
    ]
    obvious = {"SupernetConfig.batch_size", "SupernetConfig.label_smoothing",
               "DeviceConfig.threads", "FinetuneConfig.learning_rate",
               "FinetuneConfig.batch_size", "ExportConfig.format"}  # fmt: skip
    assert set(undescribed) <= obvious
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("key", REGISTRIES)
def test_registries_hold_the_built_in_names(key):
    assert registry_for(key).names()


def test_checking_a_job_loads_no_torch(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    code = f"import sys, nas; nas.load_job({str(path)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_options_of_the_strategy_are_those_it_takes(check, load):
    good = load(GOOD + "search: {strategy: evolution, options: {population: 60}}\n")
    assert good.search.options == {"population": 60}
    (told,) = check(GOOD + "search: {strategy: evolution, options: {populatoin: 60}}\n")
    assert told.startswith("4:53: ") and "did you mean 'population'?" in told
    (told,) = check(GOOD + "search: {options: {explore: 2.0}}\n")
    assert "search.options.explore: explore 2.0 is not a share between 0 and 1" in told
    # The first batch is search.initial for every strategy.
    (told,) = check(GOOD + "search: {options: {initial: 30}}\n")
    assert "unknown option 'initial'" in told


def test_which_weights_are_in_a_number_format():
    job = Job.model_validate(
        {
            "name": "a",
            "data": {"name": "digits"},
            "supernet": {"quantizers": {"weights": {"default": "lsq", 4: "fp4_e2m1", "8": "lsq+"}}},
        }
    )
    found = {bits: job.supernet.quantizers.weight_format(bits) for bits in (2, 4, 8, 32)}
    assert found == {2: "", 4: "fp4_e2m1", 8: "", 32: ""}
    plain = Job.model_validate({"name": "a", "data": {"name": "digits"}})
    assert plain.supernet.quantizers.weight_format(4) == ""


@pytest.mark.parametrize(
    "key", ["task", "data.name", "search.strategy", "supernet.schedule", "export.formats"]
)
def test_the_reference_names_everything_that_a_key_may_hold(key):
    page = (ROOT / "docs" / "yaml-reference.md").read_text(encoding="utf-8")
    section, _, name = key.rpartition(".")
    part = page.split(f"\n## `{section}`\n" if section else "\n## Top level\n")[1]
    row = next(line for line in part.splitlines() if line.startswith(f"| `{name}` |"))
    own = {
        n for n in registry_for(key).names() if registry_for(key).get(n).__module__[:5] != "tests"
    }
    assert own - set(re.findall(r"[\w-]+", row)) == set()


def test_a_recorded_job_knows_the_metric_of_its_task_in_a_process_that_read_no_other():
    """As ``nas watch`` reads one."""
    code = (
        "from nas.job.schema import Job\n"
        "raw = {'name': 'a', 'data': {'name': 'text'}, 'task': 'language_modelling',\n"
        "       'search': {'objectives': ['bits_per_byte', 'weights_kib']}}\n"
        "assert not Job.model_validate(raw).fronts()[0].goals[0].metric.kind.maximise\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_few_evaluations_are_one_batch_without_a_word():
    def first(**search):
        job = Job.model_validate({"name": "a", "data": {"name": "digits"}, "search": search})
        assert not list(check_search(job.search, None, None))
        return job.search.first

    assert first(evaluations=20) == 20
    assert first() == first(evaluations=100) == 40
    assert first(evaluations=20, initial=12) == 12
