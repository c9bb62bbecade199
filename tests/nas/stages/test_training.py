"""A network that comes trained: kept exactly, its own teacher, never worse for its training."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from nas.job.check import load_job
from nas.models.own_network import came_trained
from nas.stages.evaluator import Evaluator
from nas.stages.opened_job import RunContext
from nas.stages.pipeline import create_run
from nas.stages.progress import Progress
from nas.stages.training import train_supernet
from nas.stages.worker_tasks import finetune_candidate
from search_spaces.errors import InputError
from supernet.own_model.sources import load_network
from supernet.training.checkpoint import load_checkpoint
from supernet.training.subnets import float_plan

NETWORK = """
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.bn2 = nn.Conv2d(12, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))


def make():
    return Net()
"""

JOB = """
name: own
threads: 1
data: {name: digits, validation: 0.3, calibration: 128}
space: {name: module, model: net.py:make, weights: net.safetensors, elastic: auto}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a network's source, its trained weights, and what it answers."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "net.py").write_text(NETWORK)
    splits = RunContext.of(_job(folder, "net", trained=False), threads=1).splits
    torch.manual_seed(0)
    network = load_network(f"{folder}/net.py:make").train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    batches = splits.training_batches(64, seed=0)
    for epoch in range(15):
        for images, labels in batches.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
    save_file(network.state_dict(), folder / "net.safetensors")
    return folder


def _job(folder, name, *, trained=True, **supernet):
    path = folder / f"{name}.yaml"
    text = JOB if trained else JOB.replace("weights: net.safetensors, ", "")
    path.write_text(text + "supernet: " + json.dumps({"batch_size": 64, **supernet}) + "\n")
    return load_job(path)


def begin(folder, tmp_path, **supernet):
    job = _job(folder, f"job{len(list(folder.glob('*.yaml')))}", **supernet)
    store = create_run(job, tmp_path / "run")
    return RunContext.of(job, threads=1), store


def accuracy(context, network):
    return context.task.evaluate(
        network, context.splits.evaluation_batches(context.splits.validation)
    )


def largest(context, supernet):
    evaluator = Evaluator(supernet, context.splits, context.task)
    return evaluator.network(float_plan(context.space.plan(context.space.largest())))


def test_without_training_the_largest_is_the_network_exactly(folder, tmp_path):
    context, store = begin(folder, tmp_path, epochs=0)
    supernet, history = train_supernet(context, store, Progress())
    module = load_network(f"{folder}/net.py:make", weights=folder / "net.safetensors")
    images = torch.cat([x for x, _ in context.splits.evaluation_batches(context.splits.validation)])
    with torch.no_grad():
        expected, found = module(images), largest(context, supernet)(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert accuracy(context, largest(context, supernet)) == accuracy(context, module) > 0.8
    assert not history and came_trained(store)
    # Workers read the checkpoint.
    assert load_checkpoint(store.checkpoint)[1]["step"] == 0
    assert context.evaluator(store).supernet.space is context.space


def logged(context, store) -> str:
    lines: list[str] = []
    progress = Progress()
    progress.log = lines.append
    train_supernet(context, store, progress)
    return "\n".join(line for line in lines if line.startswith("warning"))


def test_outputs_in_another_order_than_the_classes_are_told(folder, tmp_path):
    assert logged(*begin(folder, tmp_path / "right", epochs=0)) == ""
    weights = load_file(folder / "net.safetensors")
    # Output i says what output order[i] said.
    order = torch.tensor([3, 1, 4, 0, 9, 2, 6, 5, 8, 7])
    shuffled = {k: v[order] if k.startswith("fc.") else v for k, v in weights.items()}
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    save_file(shuffled, other / "net.safetensors")
    told = logged(*begin(other, tmp_path / "wrong", epochs=0))
    order_told = "in another order than the data's: 3, 1, 4, 0, 9, 2, 6, 5, 8, 7."
    assert told.startswith("warning: the network answers") and order_told in told
    # A teacher is looked at, too.
    weights = {"model": "net.py:make", "weights": str(other / "net.safetensors")}
    told = logged(*begin(folder, tmp_path / "taught", epochs=0, teacher=weights))
    assert told.startswith("warning: the teacher") and order_told in told


def test_a_network_that_answers_by_chance_is_told(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    weights = load_file(folder / "net.safetensors")
    save_file({**weights, "fc.weight": 0 * weights["fc.weight"]}, other / "net.safetensors")
    told = logged(*begin(other, tmp_path / "run", epochs=0))
    assert "before any training" in told and "data.normalisation" in told


@pytest.mark.parametrize("rate", [0.3, 0.0001])
def test_training_never_ends_below_where_it_began(folder, tmp_path, rate):
    context, store = begin(folder, tmp_path, epochs=1, learning_rate=rate)
    supernet, _ = train_supernet(context, store, Progress())
    gate = load_checkpoint(store.checkpoint)[1]["notes"]["gate"]
    before = store.manifest()["pretrained"]["before"]
    assert gate["before"] == before and len(before) > 3
    assert sum(gate["after"]) >= sum(before)
    # Itself, in float and at 8 bits, keeps its own weights whatever became of the shared ones.
    assert gate["after"][:2] == before[:2]
    module = load_network(f"{folder}/net.py:make", weights=folder / "net.safetensors")
    assert accuracy(context, largest(context, supernet)) == accuracy(context, module)
    # A rate at which nothing is learnt but much destroyed is seen and undone. Of a gentle one as
    # much is kept as makes no sub-network worse, which one image in hundreds decides.
    if rate == 0.3:
        assert gate["share"] < 0.5
    assert gate["share"] > 0 or gate["after"] == before
    # Resumed after its end, the run has the same weights.
    again, _ = train_supernet(context, store, Progress())
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_its_subnets_gain_by_its_answers_without_labels(folder, tmp_path):
    context, store = begin(
        folder, tmp_path, epochs=3, distillation="only", schedule="taught", random_subnets=2
    )
    labels = context.splits.train.labels
    labels[context.splits.train.indices] = 0  # whoever learnt from them would answer nothing else
    train_supernet(context, store, Progress())
    gate = load_checkpoint(store.checkpoint)[1]["notes"]["gate"]
    assert gate["share"] >= 0.5
    assert sum(gate["after"]) > sum(gate["before"])


def test_only_needs_somebody_to_learn_from(folder, tmp_path):
    job = _job(folder, "alone", trained=False, epochs=1, distillation="only")
    store = create_run(job, tmp_path / "run")
    with pytest.raises(InputError, match="name one as supernet"):
        train_supernet(RunContext.of(job, threads=1), store, Progress())


def test_another_network_may_teach_and_must_fit(folder, tmp_path):
    shutil.copy(folder / "net.safetensors", folder / "teacher.safetensors")
    teacher = {"model": "net.py:make", "weights": "teacher.safetensors"}
    context, store = begin(folder, tmp_path, epochs=0.1, distillation="only", teacher=teacher)
    assert context.job.supernet.teacher.weights == str(folder / "teacher.safetensors")
    train_supernet(context, store, Progress())
    context, store = begin(folder, tmp_path / "other", epochs=0.1,
                           teacher={"model": "torch.nn:Identity"})  # fmt: skip
    with pytest.raises(InputError, match="the task has 10 outputs"):
        train_supernet(context, store, Progress())


@pytest.mark.parametrize("trained", [True, False])
def test_fine_tuning_that_harms_is_left_out(folder, tmp_path, trained):
    context, store = begin(folder, tmp_path, epochs=0)
    supernet, _ = train_supernet(context, store, Progress())
    # Shared weights that a run trained itself are given up as little.
    store.update_manifest(pretrained={**store.manifest()["pretrained"], "trained": trained})
    evaluator = Evaluator(supernet, context.splits, context.task)
    job = context.job
    harmful = job.finetune.model_copy(update={"epochs": 1.0, "learning_rate": 3.0})
    arch = context.space.largest()
    job = job.model_copy(update={"finetune": harmful})
    assert finetune_candidate(arch, job, store, evaluator) is supernet
    assert not evaluator.finetuned


def test_fine_tuning_computes_in_the_precision_of_the_job(folder, tmp_path, monkeypatch):
    from supernet.training.train import Trainer

    context, store = begin(folder, tmp_path, epochs=0)
    supernet, _ = train_supernet(context, store, Progress())
    evaluator = Evaluator(supernet, context.splits, context.task)
    sections = {
        "supernet": context.job.supernet.model_copy(update={"precision": "bfloat16"}),
        "finetune": context.job.finetune.model_copy(update={"epochs": 1.0}),
    }
    used = []
    monkeypatch.setattr(Trainer, "run", lambda self: used.append(self.recipe.precision))
    finetune_candidate(
        context.space.largest(), context.job.model_copy(update=sections), store, evaluator
    )
    assert used == ["bfloat16"]


def test_layers_are_reconstructed_without_training_where_that_helps(folder, tmp_path):
    context, store = begin(folder, tmp_path, epochs=0)
    supernet, _ = train_supernet(context, store, Progress())
    evaluator = Evaluator(supernet, context.splits, context.task)
    config = context.job.finetune.model_copy(update={"epochs": 0.0, "reconstruct": True})
    job = context.job.model_copy(update={"finetune": config})
    values = {k: 0.5 if k.startswith("width.") else v for k, v in context.space.largest().items}
    arch = context.space.arch(values)
    before = evaluator.accuracy(evaluator.network(arch))
    evaluator.finetuned[arch] = finetune_candidate(arch, job, store, evaluator)
    assert evaluator.accuracy(evaluator.network(arch)) > before + 0.1
    # There is nothing to make up for in the whole network, but for what rounding costs it.
    whole = context.space.largest()
    before = evaluator.accuracy(evaluator.network(whole))
    evaluator.finetuned[whole] = finetune_candidate(whole, job, store, evaluator)
    assert before <= evaluator.accuracy(evaluator.network(whole)) < before + 0.02


def test_no_epochs_are_for_weights_that_come_from_somewhere(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: a\ndata: {name: digits}\nsupernet: {epochs: 0}\n")
    with pytest.raises(InputError, match="0 leaves the random weights of mobilenet"):
        load_job(path)


def test_what_a_network_learnt_is_not_called_what_it_keeps():
    from nas.stages.training import _told
    from supernet.training.gate import Gated

    learnt = _told(Gated(1.0, (0.1, 0.1), (0.66, 0.5)))
    assert learnt.startswith("the network itself went from 0.1000 to 0.6600; its sub-networks gain")
    kept = _told(Gated(0.8, (0.9, 0.4), (0.9, 0.5)))
    assert kept.startswith("the network itself keeps its 0.9000") and "80%" in kept
