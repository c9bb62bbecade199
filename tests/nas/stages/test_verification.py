"""The test set: read once for a front, also when the run is cut off while it is read."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nas.record.run_folder import RunStore
from nas.stages.progress import Progress
from nas.stages.verification import Verification
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
        context = SimpleNamespace(splits=splits, job=None, space=SPACE, task=None)
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
        return {"accuracy": 0.1 * arch["n"], "per_class": {"a": None, "b": 1 / 3}}


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
