"""Vectors of examples: against references by hand, and a job from end to end."""

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from nas.job.check import load_job
from nas.report.results import load_results
from nas.stages.pipeline import run
from nas.tasks import ImageEmbedding
from nas.tasks.embedding import TEMPERATURE, cosines


def test_the_loss_is_that_of_the_paper():
    """Equation 2 of Khosla et al., written as its sums are."""
    torch.manual_seed(0)
    outputs, targets = torch.randn(9, 6), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3])
    z = F.normalize(outputs, dim=1)
    each = []
    for i in range(9):
        others = [a for a in range(9) if a != i]
        same = [p for p in others if targets[p] == targets[i]]
        if same:
            below = sum(torch.exp(z[i] @ z[a] / TEMPERATURE) for a in others)
            logs = [torch.log(torch.exp(z[i] @ z[p] / TEMPERATURE) / below) for p in same]
            each.append(-sum(logs) / len(same))
    expected = sum(each) / len(each)
    assert ImageEmbedding().loss(outputs, targets) == pytest.approx(float(expected), rel=1e-5)


def test_a_batch_without_pairs_teaches_nothing():
    outputs = torch.randn(4, 6, requires_grad=True)
    loss = ImageEmbedding().loss(outputs, torch.arange(4))
    loss.backward()
    assert loss == 0 and not outputs.grad.any()


def test_recall_is_that_of_nearest_neighbours():
    neighbours = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(0)
    targets = np.arange(120) % 6
    outputs = rng.standard_normal((120, 5)) + rng.standard_normal((6, 5))[targets]
    unit = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    found = neighbours.NearestNeighbors(n_neighbors=6).fit(unit).kneighbors(unit)[1][:, 1:]
    right = targets[found] == targets[:, None]
    score = ImageEmbedding().score()
    score.add(torch.from_numpy(outputs), torch.from_numpy(targets))
    assert score.values() == pytest.approx(
        {"recall_at_1": right[:, 0].mean(), "recall_at_5": right.any(1).mean()}
    )


def test_students_need_not_point_where_their_teacher_does():
    """A teacher's vectors turned and made longer teach the same."""
    torch.manual_seed(0)
    teacher = torch.randn(10, 6)
    turn, _ = torch.linalg.qr(torch.randn(6, 6))
    assert ImageEmbedding().distillation_loss(3 * teacher @ turn, teacher) < 1e-9
    assert torch.allclose(cosines(teacher).diagonal(), torch.ones(10))


def test_a_job_runs_from_yaml_to_a_front(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "digits",
                "threads": 1,
                "task": "image_embedding",
                "data": {"name": "digits", "train": 300, "calibration": 64},
                "space": {"name": "mobilenet", "preset": "8x8-lean", "widths": [0.5]},
                "supernet": {"epochs": 4, "batch_size": 64, "warmup_epochs": 1},
                "devices": [{"name": "mcu", "simulator": "roofline", "hardware": "mcu-simd"}],
                "search": {
                    "objectives": ["recall_at_1", "weights_kib"],
                    "evaluations": 6,
                    "initial": 4,
                    "batch": 2,
                    "latency_samples": 2,
                    "front_size": 1,
                },
            }
        )
    )
    run(load_job(path), tmp_path / "run")
    (entry,) = load_results(tmp_path / "run")["front"]
    assert entry["validation_accuracy"] > 0.5
    assert abs(entry["parity"]["accuracy_difference"]) <= 0.02
    assert "cosine" in next((tmp_path / "run" / "models").glob("*.md")).read_text()
