"""The test set: read once for a front, also when the run is cut off while it is read."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from nas.data.pictures import DamagedPicture
from nas.fronts.metrics import Goal, Metric
from nas.fronts.spec import job_fronts
from nas.job.sections.search import TrainingConfig
from nas.models.parity import Parity, UnusableModel
from nas.record.run_folder import RunStore
from nas.stages.pipeline import Pipeline
from nas.stages.progress import Progress
from nas.stages.verification import Models, Verification
from search_spaces.errors import EnvironmentProblem, MissingExtraError
from search_spaces.space import Choice, SearchSpace

SPACE = SearchSpace("numbers", [Choice("n", tuple(range(9)))])


class Killed(BaseException):
    pass


class Recorded(Verification):
    """Notes which files are tested; dies at the file named ``fatal``."""

    def __init__(self, store: RunStore, fatal: str | None = None) -> None:
        self.reads: list[str] = []
        self.files: list[str] = []
        self.fatal = fatal
        splits = SimpleNamespace(test=self.reads.append)
        task = SimpleNamespace(metric_name="accuracy")
        context = SimpleNamespace(splits=splits, job=None, space=SPACE, task=task)
        super().__init__(
            context,
            store,
            [],
            models=None,
            latencies=None,
            study=None,
            evaluator=None,
            executor=None,
            progress=Progress(),
        )

    def _metrics_of(self, path, subset, arch, keep):
        if path.name == self.fatal:
            raise Killed
        self.files.append(path.name)
        return {
            "metrics": {"accuracy": 0.1 * arch["n"]},
            "worst_class": 1 / 3,
            "per_class": {"a": None, "b": 1 / 3},
        }


@pytest.fixture
def store(tmp_path) -> RunStore:
    store = RunStore(tmp_path)
    store.work.mkdir()
    return store


def front(store: RunStore) -> list:
    items = []
    for n in range(3):
        path = store.work / f"{n}.onnx"
        path.write_bytes(bytes([n]))
        items.append(SimpleNamespace(arch=SPACE.arch({"n": n}), path=path))
    return items


def test_a_run_killed_while_testing_tests_only_what_is_left(store):
    items = front(store)
    killed = Recorded(store, fatal="2.onnx")
    with pytest.raises(Killed):
        killed.test(items)
    resumed = Recorded(store)
    found = resumed.test(items)
    assert (killed.files, resumed.files) == (["0.onnx", "1.onnx"], ["2.onnx"])
    whole = Recorded(RunStore(store.folder / "other"))
    whole.store.work.mkdir(parents=True)
    assert found == whole.test(items)


def test_a_front_that_is_tested_does_not_touch_the_test_set(store):
    items = front(store)
    first = Recorded(store).test(items)
    again = Recorded(store)
    assert again.test(items) == first
    assert not again.files and not again.reads


def test_a_model_whose_file_changed_is_tested_again(store):
    items = front(store)
    Recorded(store).test(items)
    items[1].path.write_bytes(b"other weights")
    again = Recorded(store)
    again.test(items)
    assert again.files == ["1.onnx"] and len(again.reads) == 1


class Exports:
    """Gives a file of each architecture, or the error that is its number's."""

    def __init__(self, folder, errors):
        self.folder, self.errors = folder, errors

    def export(self, arch, variant):
        if arch["n"] in self.errors:
            raise self.errors[arch["n"]]
        path = self.folder / f"{arch['n']}.onnx"
        path.write_bytes(b"file")
        return SimpleNamespace(arch=arch), path


class Verified(Verification):
    """Verifies without networks; ``agreement`` of each architecture's file is given."""

    def __init__(self, store, errors, agreement):
        self.store, self.agreement, self.left_out = store, agreement, {}
        self.models = Exports(store.work, errors)
        self.evaluator = SimpleNamespace(finetuned={}, faults=None, class_loss=False)
        search = SimpleNamespace(training=TrainingConfig())
        self.job = SimpleNamespace(search=search)
        self.space, self.fronts = SPACE, []
        self.latencies = SimpleNamespace(measure=lambda archs, variant: {})
        self.study = SimpleNamespace(record=lambda arch, metrics, **_: metrics)
        self._tried = set()

    def _finetune(self, archs):
        pass

    def _parity(self, network, path):
        same = self.agreement[network.arch["n"]]
        return Parity(100, same, None, None, 0.0, 1 - same, 1.0, 0.0, {}, (), 10)

    def _quality(self, network, path, arch, own):
        return {"accuracy": 1.0}

    def failed(self, arch, reason):
        self.left_out[arch["n"]] = reason


def verified(store, monkeypatch, errors=None, agreement=None):
    monkeypatch.setattr("nas.stages.verification.costs", lambda space, arch, fronts, training: {})
    runs = Verified(store, errors or {}, {n: 1.0 for n in range(9)} | (agreement or {}))
    return runs, [item.arch["n"] for item in runs._verify([SPACE.arch({"n": n}) for n in range(3)])]


def test_a_model_whose_file_is_unusable_or_another_network_is_left_out(store, monkeypatch):
    errors = {0: UnusableModel("an integer kernel saturates")}
    runs, found = verified(store, monkeypatch, errors, {2: 0.43})
    assert found == [1]
    assert runs.left_out[0] == "an integer kernel saturates"
    assert "same prediction on 43% of 100 images" in runs.left_out[2]


def test_what_is_left_out_is_not_tried_again_and_its_place_is_anothers(store, monkeypatch):
    monkeypatch.setattr("nas.stages.verification.costs", lambda space, arch, fronts, training: {})
    errors = {8: UnusableModel("an integer kernel saturates")}
    runs = Verified(store, errors, dict.fromkeys(range(9), 1.0))
    tried: list[int] = []
    export = runs.models.export
    runs.models.export = lambda arch, variant: (tried.append(arch["n"]), export(arch, variant))[1]
    runs._quality = lambda network, path, arch, own: {"accuracy": 0.1 * arch["n"]}
    runs.job = SimpleNamespace(
        metric="accuracy", search=SimpleNamespace(training=TrainingConfig(), places=2)
    )
    runs.fronts = job_fronts([Goal(Metric("accuracy"))], [], ["cpu"], joint=True)
    runs.progress = Progress()
    runs.latencies = SimpleNamespace(
        measure=lambda archs, variant: {},
        predicted=lambda archs: [{} for _ in archs],
        adapt=lambda: None,
    )
    evaluated = [
        SimpleNamespace(arch=SPACE.arch({"n": n}), metrics={"accuracy": 0.1 * n}) for n in range(9)
    ]
    found = runs.run(evaluated)
    assert tried.count(8) == 1 and len(tried) == len(set(tried))
    assert 7 in {item.arch["n"] for item in found}


@pytest.mark.parametrize(
    "error",
    [
        MissingExtraError("onnxruntime", "search"),
        EnvironmentProblem("disk full"),
        KeyboardInterrupt(),
    ],
)
def test_what_concerns_every_model_ends_the_run(store, monkeypatch, error):
    with pytest.raises(type(error)):
        verified(store, monkeypatch, {1: error})


def test_a_picture_that_turns_out_damaged_is_noted_so_that_it_may_be_repaired(tmp_path):
    class Damaged(Pipeline):
        def __init__(self, path, digest):
            self.store, self.path = RunStore.create(tmp_path / "run", {"job": {}}), path
            splits = SimpleNamespace(digest_of=lambda path: digest)
            self.context = SimpleNamespace(splits=splits)
            self.budget = None
            self.tracking = nullcontext()

        def _stages(self):
            raise DamagedPicture(self.path, "cut off")

    pipeline = Damaged(tmp_path / "a.png", "abc123")
    with pytest.raises(DamagedPicture):
        pipeline.execute()
    assert pipeline.store.manifest()["damaged_pictures"] == {str(tmp_path / "a.png"): "abc123"}


class Exporting(Models):
    """Notes what it exports; of an odd architecture the file is another network."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.exported: list[int] = []

    def export(self, arch, variant):
        self.exported.append(arch["n"])
        if arch["n"] % 2:
            raise UnusableModel("the file computes something else")
        path = self.path(arch, variant)
        path.write_bytes(b"model")
        return None, path


def test_a_replay_makes_only_the_files_that_the_earlier_run_did_not_measure(store):
    measured = {str(SPACE.arch({"n": n})) for n in (0, 1)}
    replayed = SimpleNamespace(
        holds=lambda space, arch, variant: (
            (space, variant) == ("numbers", "search") and arch in measured
        )
    )
    models = Exporting(SimpleNamespace(space=SPACE), store, None, replayed=replayed)
    for n in (0, 1):
        assert not models.file(SPACE.arch({"n": n}), "search").exists()
    assert models.exported == []
    # Left out by the earlier run for the same reason, so by this one too.
    with pytest.raises(UnusableModel):
        models.file(SPACE.arch({"n": 3}), "search")
    # Neither measured nor left out: the store says so when it is asked.
    assert models.file(SPACE.arch({"n": 4}), "search").exists()


def test_a_run_that_measures_makes_every_file_once(store):
    models = Exporting(SimpleNamespace(space=SPACE), store, None)
    for _ in range(2):
        assert models.file(SPACE.arch({"n": 2}), "search").exists()
    assert models.exported == [2]


def test_of_examples_that_were_learnt_at_last_the_figures_from_before_are_told():
    stage = Verification.__new__(Verification)
    stage.job = SimpleNamespace(finetune=SimpleNamespace(refit=True))
    stage.task = SimpleNamespace(metric_name="accuracy")
    before = {"accuracy": 0.8, "worst_class_accuracy": 0.5}
    stage._found = {"arch": {**before, "weights_kib": 3.0}}
    assert stage._quality(None, None, "arch", None) == before
