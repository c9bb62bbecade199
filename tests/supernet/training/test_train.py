"""Training: what a step does, and that an interruption leaves no trace."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from search_spaces.errors import InputError
from supernet.network import Supernet
from supernet.training.checkpoint import load_checkpoint, save_checkpoint
from supernet.training.subnets import BitsStage, SandwichSampler
from supernet.training.teacher import RememberingTeacher
from supernet.training.train import Recipe, Trainer, TrainingCollapse, load_weights
from tests.supernet.conftest import RandomBatches, build, everything, soft_cross_entropy

STEPS = 8


def trainer(supernet: Supernet | None = None, **changes) -> Trainer:
    supernet = build() if supernet is None else supernet
    # Float, then 8 bits, then all: quantisers are initialised while training goes on.
    stages = [BitsStage(0.2, (8,)), BitsStage(0.5, (8, 4, 2))]
    options = {
        "sampler": SandwichSampler(
            supernet.space, supernet.ranges, stages=stages, random_subnets=1, seed=3
        ),
        "batches": RandomBatches(),
        "loss": F.cross_entropy,
        "distillation_loss": soft_cross_entropy,
        "recipe": Recipe(steps=STEPS, learning_rate=0.01),
        **changes,
    }
    return Trainer(supernet, **options)


def assert_same(first: Trainer, second: Trainer) -> None:
    a, b = everything(first), everything(second)
    assert sorted(a) == sorted(b)
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == []
    assert first.step == second.step and first.history == second.history


@pytest.fixture(scope="module")
def uninterrupted() -> Trainer:
    run = trainer()
    run.run()
    assert run.step == STEPS
    return run


@settings(max_examples=4)
@given(stops=st.lists(st.integers(1, STEPS - 1), min_size=1, max_size=2))
def test_stopping_and_going_on_gives_the_same_weights(uninterrupted, stops):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.safetensors"
        for seed, stop in enumerate([*sorted(stops), STEPS]):
            # Later processes start from other weights, which the checkpoint must replace.
            run = trainer(build(seed), checkpoint=path, checkpoint_every_s=0.0)
            run.run(until=stop)
        assert_same(run, uninterrupted)


def test_by_muon_an_interruption_leaves_no_trace_either(tmp_path):
    recipe = Recipe(steps=STEPS, learning_rate=0.01, optimizer="muon")
    whole = trainer(recipe=recipe)
    whole.run()
    path = tmp_path / "c.safetensors"
    trainer(recipe=recipe, checkpoint=path, checkpoint_every_s=0.0).run(until=3)
    run = trainer(build(seed=9), recipe=recipe, checkpoint=path)
    run.run()
    assert any(name.startswith("average.") for name in everything(run))
    assert_same(run, whole)


def test_a_training_that_began_before_there_was_muon_goes_on_by_adamw(uninterrupted, tmp_path):
    path = tmp_path / "c.safetensors"
    trainer(checkpoint=path, checkpoint_every_s=0.0).run(until=3)
    tensors, state = load_checkpoint(path)
    del state["recipe"]["optimizer"]
    save_checkpoint(path, tensors, state)
    muon = Recipe(steps=STEPS, learning_rate=0.01, optimizer="muon")
    run = trainer(recipe=muon, checkpoint=path)
    run.run()
    assert_same(run, uninterrupted)
    # One that says what it was trained by is not trained on by another.
    trainer(checkpoint=tmp_path / "d", checkpoint_every_s=0.0).run(until=3)
    with pytest.raises(InputError, match="optimizer was adamw and is now muon"):
        trainer(recipe=muon, checkpoint=tmp_path / "d").run()


@pytest.mark.parametrize("crash", [1, 2, 5, STEPS])
def test_a_crash_in_any_step_gives_the_same_weights(uninterrupted, tmp_path, crash):
    def die(record):
        if record["step"] == crash:
            raise KeyboardInterrupt

    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trainer(checkpoint=path, checkpoint_every_s=0.0, on_step=die).run()
    assert path.exists() == (crash > 1)
    run = trainer(checkpoint=path)
    run.run()
    assert_same(run, uninterrupted)


def test_a_finished_training_is_not_trained_again(uninterrupted, tmp_path):
    path = tmp_path / "c.safetensors"
    trainer(checkpoint=path, checkpoint_every_s=1e9).run()
    run = trainer(build(seed=9), checkpoint=path, on_step=lambda record: pytest.fail("a step"))
    run.run()
    assert_same(run, uninterrupted)


def test_training_is_the_same_twice(uninterrupted):
    again = trainer()
    again.run()
    assert_same(again, uninterrupted)


def test_training_with_another_seed_differs(uninterrupted):
    """Else the test above would pass for a training that ignores what it is given."""
    other = trainer(build(seed=1))
    other.run()
    a, b = everything(other), everything(uninterrupted)
    assert any(not torch.equal(a[name], b[name]) for name in a if name.endswith(".weight"))


def test_training_changes_every_layer(uninterrupted):
    before = build().state_dict()
    after = uninterrupted.supernet.state_dict()
    for name in before:
        if name.endswith(".weight"):
            assert not torch.equal(before[name], after[name]), name


def test_the_records_tell_what_happened(uninterrupted):
    records = []
    run = trainer(on_step=records.append)
    run.run()
    assert [r["step"] for r in records] == list(range(1, STEPS + 1))
    assert [r["learning_rate"] for r in records] == [run.recipe.rate(i) for i in range(STEPS)]
    assert all(math.isfinite(r["loss"]) and math.isfinite(r["subnet_loss"]) for r in records)
    assert records[0]["subnet_loss"] == 0 < records[-1]["subnet_loss"]
    assert run.history == records == uninterrupted.history


@pytest.mark.parametrize("step", [0, 5])
def test_a_loss_that_is_not_finite_ends_training_by_name(step):
    run = trainer()
    run.run(until=step)
    before = everything(run)
    run.loss = lambda outputs, targets: outputs.sum() * math.nan
    with pytest.raises(TrainingCollapse, match=rf"step {step + 1}: .*nan.*\(now 0\.01\)") as error:
        run.run()
    assert error.value.exit_code == 2 and run.step == step
    after = everything(run)
    weights = [name for name in before if "log_step" not in name and "offset" not in name]
    assert all(torch.equal(before[n], after[n]) for n in weights if "initialized" not in n)


def test_gradients_that_are_not_finite_end_training_by_name():
    run = trainer()
    # Zero, with the derivative 0 * infinity.
    run.loss = lambda outputs, targets: (0 * outputs).square().sum().sqrt()
    with pytest.raises(TrainingCollapse, match="step 1: the gradients are not finite"):
        run.run()
    assert all(p.isfinite().all() for p in run.supernet.parameters())


def test_subnets_learn_from_the_teacher_which_gets_no_gradient():
    seen = []

    def distil(outputs, teacher):
        seen.append((outputs.requires_grad, teacher.requires_grad, teacher.clone()))
        return soft_cross_entropy(outputs, teacher)

    targets = []

    def loss(outputs, expected):
        targets.append(outputs.detach().clone())
        return F.cross_entropy(outputs, expected)

    run = trainer(distillation_loss=distil, loss=loss)
    run.step = STEPS - 1
    images, labels = next(RandomBatches().epoch(0))
    run.train_step(images, labels)
    assert len(targets) == 1 and len(seen) == 2
    for outputs_learn, teacher_learns, teacher in seen:
        assert outputs_learn and not teacher_learns
        assert torch.equal(teacher, targets[0])


def test_without_distillation_every_subnet_learns_from_the_targets():
    losses = []

    def loss(outputs, expected):
        losses.append(len(outputs))
        return F.cross_entropy(outputs, expected)

    def distil(outputs, teacher):
        raise AssertionError("distilled")

    recipe = Recipe(steps=STEPS, distillation=False)
    run = trainer(loss=loss, distillation_loss=distil, recipe=recipe)
    run.step = STEPS - 1
    run.train_step(*next(RandomBatches().epoch(0)))
    assert losses == [4, 4, 4]


def test_gradients_are_clipped_together():
    run = trainer(recipe=Recipe(steps=STEPS, gradient_clip=1e-3))
    run.train_step(*next(RandomBatches().epoch(0)))
    gradients = [p.grad for p in run.supernet.parameters() if p.grad is not None]
    assert torch.stack([g.norm() for g in gradients]).norm() <= 1e-3 * 1.001


@given(steps=st.integers(1, 3000), warmup=st.floats(0, 0.5))
def test_the_rate_rises_to_its_peak_and_falls_to_nothing(steps, warmup):
    recipe = Recipe(steps=steps, learning_rate=0.5, warmup=warmup)
    rates = [recipe.rate(step) for step in range(steps)]
    peak = max(1, round(warmup * steps)) - 1
    assert rates[peak] == pytest.approx(0.5) and max(rates) <= 0.5 * (1 + 1e-12)
    assert all(rate > 0 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert recipe.rate(steps) == pytest.approx(0.0 if steps > peak + 1 else 0.5)


def test_with_a_restart_the_rate_goes_through_two_cycles():
    recipe = Recipe(steps=100, learning_rate=0.5, warmup=0.1, restart=0.4)
    first, second = Recipe(40, 0.5, warmup=0.1), Recipe(60, 0.5, warmup=0.1)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[:40] == [first.rate(step) for step in range(40)]
    assert rates[40:] == [second.rate(step) for step in range(60)]


def test_weights_of_the_same_space_load_whole():
    first, second = build(1), build(2)
    first(torch.randn(4, 1, 6, 6), first.space.largest())
    assert load_weights(second, first.state_dict()) == []
    for name, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[name])
    prefixed = {f"model.{k}": v for k, v in first.state_dict().items()}
    assert load_weights(build(3), {**prefixed, "other": torch.ones(1)}, prefix="model.") == []


def test_what_was_not_found_keeps_its_value_and_is_named():
    source, target = build(1).state_dict(), build(2)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    missing = [name for name in source if name.startswith("layers.stem.")]
    kept = load_weights(target, {k: v for k, v in source.items() if k not in missing})
    assert kept == sorted(missing) and missing
    for name, value in target.state_dict().items():
        assert torch.equal(value, before[name] if name in missing else source[name])


def test_weights_that_do_not_fit_are_refused():
    supernet = build()
    with pytest.raises(InputError, match=r"w\.pt has no tensor of this network: .*'conv1'"):
        load_weights(supernet, {"conv1": torch.ones(1)}, source="w.pt")
    with pytest.raises(InputError, match="has no tensor of this network"):
        load_weights(supernet, supernet.state_dict(), prefix="model.")
    wide = build(stem_channels=8)
    with pytest.raises(InputError, match=r"stem\.weight has the shape \(8, .*asks for \(4,"):
        load_weights(supernet, wide.state_dict())


def test_a_checkpoint_that_is_none_of_this_training_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    trainer(build(stem_channels=8), checkpoint=path, checkpoint_every_s=0.0).run(until=1)
    with pytest.raises(InputError, match="the space asks for"):
        trainer(checkpoint=path).run()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="no safetensors file"):
        trainer(checkpoint=path).run()
    with pytest.raises(InputError, match="does not exist"):
        trainer().restore(tmp_path / "missing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": Recipe(steps=STEPS, learning_rate=0.02)}, "learning_rate was 0.01 and is now"),
        ({"recipe": Recipe(steps=STEPS + 1, learning_rate=0.01)}, "steps was 8 and is now 9"),
    ],
)
def test_a_changed_recipe_is_refused_by_name(tmp_path, change, message):
    path = tmp_path / "c.safetensors"
    trainer(checkpoint=path).run()
    with pytest.raises(InputError, match=message):
        trainer(checkpoint=path, **change).run()


def test_a_changed_space_is_refused_with_a_tensor_that_differs(tmp_path):
    path = tmp_path / "c.safetensors"
    trainer(checkpoint=path).run()
    deeper = [{"channels": 8, "stride": 1, "depths": [1, 2, 3]}]
    with pytest.raises(InputError, match=r"lacks \d+ tensors, such as layers\.s1_b3"):
        trainer(build(stages=deeper)).restore(path)
    shallower = [{"channels": 8, "stride": 1, "depths": [1]}]
    with pytest.raises(InputError, match=r"beyond this network, \d+ tensors, such as .*s1_b2"):
        trainer(build(stages=shallower)).restore(path)


def test_weights_without_a_training_are_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {f"model.{k}": v for k, v in build().state_dict().items()}, {})
    with pytest.raises(InputError, match=r"no state of a training.*init_from"):
        trainer().restore(path)


def test_restoring_never_initialises_a_step_again(uninterrupted, tmp_path):
    path = tmp_path / "c.safetensors"
    uninterrupted.save(path)
    run = trainer(build(seed=4))
    run.restore(path)
    assert run.supernet.fully_initialized() == uninterrupted.supernet.fully_initialized()
    before = {k: v.clone() for k, v in run.supernet.state_dict().items() if "log_step" in k}
    done = {
        k for k, v in run.supernet.state_dict().items() if k.endswith("initialized") and v.all()
    }
    with torch.no_grad():
        plans = run.sampler.plans(STEPS - 1, 0.9)
        for plan in plans:
            run.supernet(100 * torch.randn(4, 1, *plan.input_shape[1:]), plan)
    after = run.supernet.state_dict()
    for flag in done:
        name = flag.replace("initialized", "log_step")
        assert torch.equal(before[name], after[name]), name


def test_validation_is_recorded_and_a_fall_ends_training():
    values = iter([0.9, 0.2, 0.1])
    seen = []

    def validate(supernet, plan):
        seen.append(plan)
        return next(values)

    run = trainer(validate=validate, validate_every=2)
    with pytest.raises(TrainingCollapse, match=r"by step 6: validation fell from 0\.9000"):
        run.run()
    assert [r["validation"] for r in run.history if "validation" in r] == [0.9, 0.2, 0.1]
    assert len(seen) == 3


def test_reading_a_checkpoint_twice_does_not_take_a_rise_for_a_fall(tmp_path):
    values = iter([0.2, 0.3, 0.9, 0.95])
    path = tmp_path / "c.safetensors"
    run = trainer(validate=lambda *_: next(values), validate_every=2, checkpoint=path)
    run.run()
    again = trainer(validate=lambda *_: 0.9, validate_every=2, checkpoint=path)
    again.restore(path)
    again.restore(path)
    assert again.step == STEPS


def test_bfloat16_trains_float32_parameters_close_to_float32():
    exact, half = trainer(), trainer(recipe=Recipe(STEPS, learning_rate=0.01, precision="bfloat16"))
    exact.run()
    half.run()
    assert all(p.dtype == torch.float32 for p in half.supernet.parameters())
    assert exact.history[0]["loss"] != half.history[0]["loss"]
    assert half.history[0]["loss"] == pytest.approx(exact.history[0]["loss"], rel=0.02)


def test_a_teacher_that_remembers_is_asked_in_the_precision_of_training():
    class Views:
        views = None

        def views_of(self, epoch, index):
            return None

    def network(images):
        asked.append(torch.is_autocast_enabled("cpu"))
        return torch.zeros(len(images), 3)

    for precision in ("float32", "bfloat16"):
        asked = []
        run = trainer(
            teacher=RememberingTeacher(network, Views()),
            recipe=Recipe(STEPS, precision=precision),
            distillation_loss=soft_cross_entropy,
        )
        run.train_step(*next(RandomBatches().epoch(0)))
        assert asked == [precision == "bfloat16"]


def test_a_given_teacher_is_learnt_from_beside_the_targets():
    teacher_outputs = torch.zeros(4, 3)
    taught = []

    def distil(outputs, teacher):
        taught.append(teacher)
        return soft_cross_entropy(outputs, teacher)

    plain, run = trainer(), trainer(teacher=lambda x: teacher_outputs, distillation_loss=distil)
    images, labels = next(RandomBatches().epoch(0))
    expected = plain.train_step(images, labels)["loss"]
    both = run.train_step(images, labels)["loss"]
    # What is told is the loss of the targets; the teacher's is added where gradients come from.
    assert taught[0] is teacher_outputs and both == pytest.approx(expected, abs=1e-5)
    ours, theirs = (next(iter(each.supernet.parameters())) for each in (plain, run))
    assert not torch.equal(ours, theirs)
