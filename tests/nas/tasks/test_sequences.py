"""Encoder-decoders from a job to files that answer, and the metric by hand."""

import csv
import json
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from typer.testing import CliRunner

from nas.cli.main import app
from nas.job.check import load_job
from nas.job.yaml_source import DiagnosticsError
from nas.models.hand_over import export_model
from nas.models.language.generate import TextGenerator
from nas.models.language.parts import part_path
from nas.models.language.transduce import Transducer
from nas.report.results import load_results
from nas.stages.pipeline import run
from nas.tasks import SequenceToSequence
from nas.tasks.sequences import edits
from search_spaces.errors import InputError

WORDS = [f"{a}{b}{c}{d}" for a in "abcd" for b in "efgh" for c in "ij" for d in "klmn"]
JOB = {
    "name": "words",
    "task": "sequence_to_sequence",
    "threads": 1,
    "data": {
        "name": "text_pairs",
        "path": "words.tsv",
        "options": {"target_tokens": "symbols"},
        "calibration": 32,
    },
    "space": {
        "name": "encoder_decoder", "preset": "100k", "weight_bits": [2, 8],
        "granularity": "block",
    },
    "supernet": {"epochs": 6, "batch_size": 16, "warmup_epochs": 1, "learning_rate": 0.004},
    "devices": [
        {"name": "whole", "runtime": "onnxruntime"},
        {"name": "source", "runtime": "onnxruntime", "measures": "encode"},
        {"name": "token", "runtime": "onnxruntime", "measures": "decode"},
    ],
    "protocol": {"processes": 2, "runs": 3, "retries": 0, "deadline_s": 120},
    "search": {"evaluations": 5, "initial": 4, "batch": 2, "latency_samples": 2, "front_size": 2},
}  # fmt: skip


def write_words(folder):
    lines = (f"{word}\t{' '.join(letter.upper() for letter in word)}\n" for word in WORDS)
    (folder / "words.tsv").write_text("".join(lines))


def one_hot(rows, symbols=6):
    return 5.0 * torch.nn.functional.one_hot(torch.tensor(rows), symbols)


def test_a_word_is_wrong_with_one_wrong_symbol_before_its_end():
    task = SequenceToSequence()
    targets = torch.tensor([[1, 2, 0, 0], [1, 2, 3, 0], [1, 2, 0, 0], [4, 0, 0, 0]])
    # Right though it goes on after the end; a symbol too many; one missing; another one.
    told = one_hot([[1, 2, 0, 5], [1, 2, 3, 3], [1, 0, 0, 0], [5, 0, 0, 0]])
    assert task.terms(told, targets).tolist() == [0.0, 1.0, 1.0, 1.0]
    score = task.score()
    score.add(told, targets)
    assert score.values() == {
        "word_error_rate": 0.75,
        # 1 to drop, 1 to insert, 1 to change, of 8 symbols.
        "token_error_rate": pytest.approx(3 / 8),
    }


@pytest.mark.parametrize(
    ("answer", "wanted", "expected"),
    [("", "", 0), ("ab", "", 2), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)],
)
def test_edits_are_levenshteins(answer, wanted, expected):
    assert edits(list(map(ord, answer)), list(map(ord, wanted))) == expected


def test_answers_are_those_of_one_symbol_after_another():
    """A causal network whose next symbol depends on everything before it."""
    torch.manual_seed(0)
    length, symbols = 9, 7
    weights = torch.randn(length, length, symbols, symbols)
    causal = torch.tril(torch.ones(length, length))[:, :, None, None]

    def network(x):
        given = torch.nn.functional.one_hot(x[:, 0, 0, 4:].long(), symbols).float()
        bias = x[:, 0, 0, :4].sum(1)[:, None, None].sin()
        values = torch.einsum("bis,ijst->bjt", given, (weights * causal).transpose(0, 1))
        return values + bias * torch.arange(symbols)

    inputs = torch.randint(1, symbols, (40, 1, 1, 4 + length)).float()
    inputs[..., 4] = 0
    calls = []
    counted = SequenceToSequence().answer(lambda x: calls.append(len(x)) or network(x), inputs)
    expected = inputs.clone()
    for place in range(length):
        values = network(expected)
        if place + 1 < length:
            expected[:, 0, 0, 4 + place + 1] = values[:, place].argmax(-1).float()
    for mine, other in zip(counted.argmax(-1), values.argmax(-1), strict=True):
        stop = [*mine.tolist(), 0].index(0) + 1
        assert mine[:stop].tolist() == other[:stop].tolist()
    # Rows that are done are not asked again.
    assert calls[0] == 40 and len(calls) <= length + 1 and calls[-1] <= calls[0]
    # Whether an answer is right can be told from the targets alone.
    task = SequenceToSequence()
    targets = torch.cat([inputs[:, 0, 0, 5:].long(), torch.zeros(40, 1, dtype=torch.long)], 1)
    targets[:20] = values[:20].argmax(-1)
    known = inputs.clone()
    known[..., 5:] = targets[:, None, None, :-1].float()
    forced = task.terms(network(known), targets)
    assert forced.tolist() == task.terms(task.answer(network, known), targets).tolist()
    assert 0 < forced.mean() < 1


def test_a_job_runs_from_yaml_to_report_and_files_that_answer(tmp_path):
    write_words(tmp_path)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(JOB))
    folder = tmp_path / "run"
    run(load_job(path), folder)
    results = load_results(folder)
    assert results["metric"] == "word_error_rate" and not results["task"]["has_classes"]
    entries = results["front"]
    for entry in entries:
        assert abs(entry["parity"]["accuracy_difference"]) <= 0.1
        assert entry["parity"]["agreement"] > 0.9
        assert 0 <= entry["test_accuracy"] <= 1
    card = (folder / "models" / f"{entries[0]['id']}.md").read_text()
    assert "test word_error_rate" in card and "numbers of the source's characters" in card
    assert "subtract the mean" not in card
    examples = json.loads((folder / "examples.json").read_text())["examples"]
    assert len(examples) == 8 and all("→" in one["caption"] for one in examples)
    header = (folder / "front.csv").read_text().splitlines()[0].split(",")
    assert {"word_error_rate", "validation_word_error_rate", "token_error_rate"} <= set(header)
    with open(folder / "front.csv", newline="", encoding="utf-8") as file:
        rows = {(row["id"], row["device"]): row for row in csv.DictReader(file)}
    for entry in entries:
        each = [float(rows[entry["id"], d]["latency_ms"]) for d in ("whole", "source", "token")]
        assert len(set(each)) == 3 and min(each) > 0
    # The files answer what the whole does, greedily: of the words of the set.
    best = min(entries, key=lambda entry: entry["test_accuracy"])
    model = folder / "models" / f"{best['id']}.onnx"
    transducer = Transducer(model)
    right = [transducer.answer(w) == " ".join(letter.upper() for letter in w) for w in WORDS]
    assert sum(right) / len(right) == pytest.approx(1 - best["test_accuracy"], abs=0.35)
    export_model(folder, best["id"], tmp_path / "out")
    for part in ("encode", "decode"):
        assert part_path(tmp_path / "out" / model.name, part).is_file()
    answer = CliRunner().invoke(app, ["generate", str(model), "--prompt", "aeik"])
    assert answer.stdout == f"{transducer.answer('aeik')}\n"
    (tmp_path / "asked.txt").write_text("aeik\nbfjl\n")
    both = CliRunner().invoke(app, ["generate", str(model), "--lines", str(tmp_path / "asked.txt")])
    expected = [f"{w}\t{transducer.answer(w)}" for w in ("aeik", "bfjl")]
    assert both.stdout.splitlines() == expected
    _refused(model, transducer, tmp_path)


def _refused(model, transducer, folder):
    for source, message in (
        ("", "the source is empty"),
        ("aeika", "has 5 symbols, and the model reads 4"),
        ("aeiz", "'z' is in no line of the training set"),
    ):
        with pytest.raises(InputError, match=message):
            transducer.answer(source)
    with pytest.raises(InputError, match="turns one sequence into another"):
        TextGenerator(model)
    alone = folder / "alone.onnx"
    alone.write_bytes(model.read_bytes())
    with pytest.raises(InputError, match=r"alone-encode\.onnx is not there"):
        Transducer(alone)
    (folder / "wrong.txt").write_text("aeik\nzz\n")
    for options, message in (
        (["--prompt", "aeik", "--temperature", "1", "--seed", "2"], "--temperature, --seed: "),
        ([], "give one source with --prompt"),
        (["--prompt", "aeik", "--lines", str(folder / "wrong.txt")], "give one source with"),
        (["--lines", str(folder / "wrong.txt")], "wrong.txt:2: the source 'zz'"),
    ):
        result = CliRunner().invoke(app, ["generate", str(model), *options])
        assert result.exit_code == 2 and message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"name": "decoder"}}, "needs answers with a sequence; use encoder_decoder"),
        ({"task": "language_modelling"}, "answer with a sequence, and the task"),
        ({"data": {"name": "text_pairs"}}, "data.path: text_pairs needs the"),
        ({"data": {**JOB["data"], "options": {"target_token": 3}}}, "did you mean 'target_tokens'"),
        ({"space": {"name": "encoder_decoder", "source_length": 9}}, "follows from the data"),
        ({"space": {"name": "encoder_decoder", "attends": [4]}}, "last 3 encoder layers at most"),
        (
            {"devices": [{"name": "a", "measures": "encode", "runtime": "lowbit"}]},
            "devices.0.measures: lowbit does not run the parts of enc",
        ),
        (
            {
                "task": "language_modelling",
                "data": {"name": "text", "path": "words.tsv"},
                "space": {"name": "decoder"},
                "devices": [{"name": "a", "measures": "encode"}],
            },
            "devices.0.measures: a language model has no encoder",
        ),
    ],
)
def test_a_job_that_cannot_be_is_told_by_its_line(tmp_path, changes, message):
    write_words(tmp_path)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**JOB, **changes}))
    with pytest.raises(DiagnosticsError, match=message):
        load_job(path)


_KILLED = """
import os, signal, sys
from pathlib import Path
from nas.job.check import load_job
from nas.record.run_folder import RunStore
from nas.stages.pipeline import resume, run

folder, left = Path(sys.argv[1]), [int(sys.argv[2])]
event = RunStore.event

def counted(*arguments, **keywords):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return event(*arguments, **keywords)

RunStore.event = counted
if (folder / "manifest.json").exists():
    resume(folder)
else:
    run(load_job(folder.parent / "job.yaml"), folder)
"""


def test_a_run_that_is_killed_goes_on_to_its_front(tmp_path):
    write_words(tmp_path)
    job = JOB | {"devices": JOB["devices"][1:2]}
    job["supernet"] = {**JOB["supernet"], "epochs": 1, "warmup_epochs": 0.5}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    folder, codes = tmp_path / "run", []
    for count in (6, 10_000):
        given = [sys.executable, "-c", _KILLED, str(folder), str(count)]
        codes.append(subprocess.run(given, capture_output=True, check=False).returncode)
    assert codes[0] == -signal.SIGKILL and codes[-1] == 0
    results = load_results(folder)
    ids = [evaluation["id"] for evaluation in results["evaluations"]]
    assert results["front"] and len(ids) == len(set(ids)) == 5
    for entry in results["front"]:
        assert part_path(folder / "models" / f"{entry['id']}.onnx", "encode").is_file()
