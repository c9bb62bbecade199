"""Detection and segmentation from a job to its report, card and exported files."""

import json

import pytest
import yaml

from nas.job.check import load_job
from nas.report.results import load_results
from nas.stages.pipeline import resume, run

JOB = {
    "name": "tiny",
    "threads": 1,
    "data": {
        "name": "scenes",
        "options": {"side": 32, "images": 48, "most": 2, "clutter": 0},
        "calibration": 32,
    },
    "supernet": {"epochs": 2, "batch_size": 16, "warmup_epochs": 1},
    "devices": [
        {"name": "cpu", "runtime": "onnxruntime", "threads": 1},
        {"name": "board", "simulator": "roofline", "hardware": "mcu-simd"},
    ],
    "protocol": {"processes": 2, "runs": 3, "retries": 0, "deadline_s": 120},
    "search": {"evaluations": 6, "initial": 4, "batch": 2, "latency_samples": 2, "front_size": 1},
}


@pytest.mark.parametrize(
    "task, space, metric, beside",
    [
        ("object_detection", "detector", "ap50", ["ap", "ap75"]),
        ("semantic_segmentation", "segmenter", "mean_iou", ["pixel_accuracy"]),
    ],
)
def test_a_job_runs_from_yaml_to_report_and_files(tmp_path, task, space, metric, beside):
    path = tmp_path / "job.yaml"
    whole = {
        **JOB,
        "task": task,
        "space": {"name": space, "preset": "48x48", "resolutions": [32]},
        "search": {**JOB["search"], "objectives": [metric, "latency_ms[cpu]"]},
    }
    path.write_text(yaml.safe_dump(whole))
    folder = tmp_path / "run"
    run(load_job(path), folder)
    results = load_results(folder)
    assert results["metric"] == metric and list(results["task"]["further_metrics"]) == beside
    entry = results["front"][0]
    # The exported file gives the task's metric as the network does; hardly trained networks are
    # sure of nothing, so that the rounding of integers tells a few boxes more or less.
    assert abs(entry["parity"]["accuracy_difference"]) <= 0.1
    card = (folder / "models" / f"{entry['id']}.md").read_text()
    assert "`logits`: float32, (batch," in card and f"test {metric}" in card
    examples = json.loads((folder / "examples.json").read_text())
    assert len(examples["examples"]) == 8 and examples["model"]
    page = (folder / "report.html").read_text()
    assert "<h2>Examples</h2>" in page and "data:image/png;base64," in page
    header = (folder / "front.csv").read_text().splitlines()[0].split(",")
    assert {metric, f"validation_{metric}", *beside} <= set(header)
    # Going on with what has ended writes the report again, the pictures among it.
    (folder / "report.html").unlink()
    resume(folder)
    assert "<h2>Examples</h2>" in (folder / "report.html").read_text()
