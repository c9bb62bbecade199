"""Language models from a job to files that other runtimes run, and the metric by hand."""

import csv
import json
import math

import numpy as np
import onnx
import pytest
import torch
import yaml

from devices.runtime import make_runtime
from nas.data.augment import Normalisation
from nas.data.text.tokens import BytePairs, ByteTokens
from nas.job.check import load_job
from nas.job.yaml_source import DiagnosticsError
from nas.models.export_formats import export_formats
from nas.models.hand_over import export_model
from nas.models.language.generate import TextGenerator
from nas.models.language.step_file import step_path
from nas.record.run_folder import RunStore
from nas.report.results import load_results
from nas.stages.pipeline import run
from nas.tasks import LanguageModelling
from search_spaces.errors import InputError

JOB = {
    "name": "lines",
    "task": "language_modelling",
    "threads": 1,
    "data": {"name": "text", "path": "book.txt", "options": {"length": 16}, "calibration": 32},
    "space": {"name": "decoder", "preset": "60k", "weight_bits": [2, 8], "granularity": "block"},
    "supernet": {"epochs": 1, "batch_size": 32, "warmup_epochs": 0.5},
    "devices": [
        {"name": "cpu", "runtime": "onnxruntime"},
        {"name": "token", "runtime": "onnxruntime", "measures": "decode"},
    ],
    "protocol": {"processes": 2, "runs": 3, "retries": 0, "deadline_s": 120},
    "search": {"evaluations": 5, "initial": 4, "batch": 2, "latency_samples": 2, "front_size": 2},
}
BOOK = "".join(
    f"{n} green bottles hanging on the wall, and {n - 1} on the floor.\n" for n in range(99)
)


def test_bits_per_byte_are_counted_by_the_byte():
    pytest.importorskip("tokenizers")
    task = LanguageModelling()
    task.tokens = BytePairs.trained(["abab" * 50], 257)
    pair = next(i for i, spelling in enumerate(task.tokens.spellings) if len(spelling) == 2)
    single = task.tokens.spellings.index(b"a")
    outputs = torch.zeros(1, 2, 257)
    outputs[0, 0, pair] = 3.0
    score = task.score()
    score.add(outputs, torch.tensor([[pair, single]]))
    first = math.log(math.exp(3) + 256) - 3
    nats = first + math.log(257)
    values = score.values()
    assert values["bits_per_byte"] == pytest.approx(nats / math.log(2) / 3)
    assert values["perplexity"] == pytest.approx(math.exp(nats / 2))
    assert values["token_accuracy"] == 0.5


def test_a_job_runs_from_yaml_to_report_and_files(tmp_path):
    (tmp_path / "book.txt").write_text(BOOK)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(JOB))
    folder = tmp_path / "run"
    run(load_job(path), folder)
    results = load_results(folder)
    assert results["metric"] == "bits_per_byte" and not results["task"]["has_classes"]
    entries = results["front"]
    for entry in entries:
        assert abs(entry["parity"]["accuracy_difference"]) <= 0.02
        assert entry["parity"]["agreement"] > 0.9
        assert 0 < entry["test_accuracy"] < 8
    card = (folder / "models" / f"{entries[0]['id']}.md").read_text()
    assert "test bits_per_byte" in card and "the bytes of a text in UTF-8" in card
    assert "subtract the mean" not in card
    examples = json.loads((folder / "examples.json").read_text())["examples"]
    assert len(examples) == 8 and all("→" in one["caption"] for one in examples)
    assert "<h2>Examples</h2>" in (folder / "report.html").read_text()
    header = (folder / "front.csv").read_text().splitlines()[0].split(",")
    assert {"bits_per_byte", "validation_bits_per_byte", "perplexity"} <= set(header)
    # A run that goes on, or a worker, reads the job with every default written out.
    again = RunStore.open(folder).job()
    splits = LanguageModelling().load(again.data, again.seed)
    assert splits.normalisation == Normalisation((0.0,), (1.0,), scale=1.0)
    # A window and a token are measured apart, each by its own file.
    with open(folder / "front.csv", newline="", encoding="utf-8") as file:
        rows = {(row["id"], row["device"]): row for row in csv.DictReader(file)}
    for entry in entries:
        window, token = (float(rows[entry["id"], d]["latency_ms"]) for d in ("cpu", "token"))
        assert window > 0 and token > 0 and window != token
    model = folder / "models" / f"{entries[0]['id']}.onnx"
    assert step_path(model).is_file()
    assert len("".join(TextGenerator(model).generate("9 green", 30)).encode()) >= 30
    export_model(folder, entries[0]["id"], tmp_path / "out")
    assert step_path(tmp_path / "out" / model.name).is_file()
    with pytest.raises(InputError, match="numbers of tokens, which are no pixels"):
        export_formats(folder, entries[0]["id"], embed_preprocessing=True)
    (packed,) = export_formats(folder, entries[0]["id"], tmp_path / "low", formats=["lowbit"])
    assert packed.relative_error is not None and packed.relative_error < 0.05
    # The file says what its tokens are, and the low-bit runtime gives the same values.
    file = folder / "models" / f"{entries[0]['id']}.onnx"
    notes = {note.key: note.value for note in onnx.load(file).metadata_props}
    assert notes["tokenizer"] == "bytes" and "preprocessing" not in notes
    x = ByteTokens().encode("10 green bottles").astype(np.float32).reshape(1, 1, 1, 16)
    expected = make_runtime("onnxruntime", {"graph_optimization": "off"}).load(file)(x)[0]
    found = make_runtime("lowbit", {"tune": False}).load(file)(x)[0]
    assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"name": "mobilenet"}}, "needs answers for every token; use decoder"),
        ({"task": "image_classification"}, "answer for every token, and the task"),
        ({"data": {"name": "text"}}, "data.path: text needs the"),
        ({"data": {"name": "text", "path": "none.txt"}}, "none.txt does not exist"),
        ({"data": {**JOB["data"], "options": {"lenght": 3}}}, "did you mean 'length'"),
        ({"space": {"name": "decoder", "heads": [0]}}, "heads"),
        (
            {
                "task": "image_classification",
                "data": {"name": "digits"},
                "space": {"name": "resnet"},
            },
            "devices.1.measures: decode is for language models and encoder-decoders, and the task",
        ),
        (
            {"devices": [{"name": "a", "measures": "decode", "batch": 2}]},
            "devices.0.measures: .* set batch: 1",
        ),
        (
            {
                "devices": [
                    {
                        "name": "a",
                        "measures": "decode",
                        "simulator": "roofline",
                        "hardware": "mcu-simd",
                    }
                ]
            },
            "devices.0.measures: roofline estimates whole networks",
        ),
    ],
)
def test_a_job_that_cannot_be_is_told_by_its_line(tmp_path, changes, message):
    (tmp_path / "book.txt").write_text(BOOK)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**JOB, **changes}))
    with pytest.raises(DiagnosticsError, match=message):
        load_job(path)
