"""What of an older run holds for a new one."""

import json

import nas
from nas.record.run_folder import RunStore
from nas.stages.warm_start import WarmStart


def test_files_that_changed_leave_the_older_supernet_behind(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({"name": "warm", "data": {"name": "digits"}}))
    job = nas.load_job(path)
    record = nas.load_splits(job.data, job.seed).record()
    store = RunStore.create(tmp_path / "run", {"job": job.resolved(), "data": record})
    store.event("stage_end", stage="supernet", seconds=1.0)
    store.checkpoint.parent.mkdir()
    store.checkpoint.write_bytes(b"weights")
    plan = {"steps": 41, "warmup": 0.5}
    store.update_manifest(training_plan=plan)

    same = WarmStart.of(job, store.folder, record)
    assert same.same_training and same.why == ""

    splits = {**record["splits"], "train": {**record["splits"]["train"], "source_sha256": "0" * 64}}
    changed = WarmStart.of(job, store.folder, {**record, "splits": splits})
    assert not changed.same_training
    assert "load_digits differ" in changed.why and "not its supernet" in changed.why
    new = RunStore.create(tmp_path / "new", {"job": job.resolved()})
    changed.copy_into(new)
    assert not new.checkpoint.exists() and "training_plan" not in new.manifest()
    same.copy_into(new)
    assert new.checkpoint.read_bytes() == b"weights"
    # Without it a run timed its steps anew, and refused the checkpoint of so many others.
    assert new.manifest()["training_plan"] == plan


def test_what_differs_in_the_job_is_told(tmp_path):
    mapping = {"name": "warm", "data": {"name": "digits"}}
    older = nas.make_job(mapping)
    record = nas.load_splits(older.data, older.seed).record()
    store = RunStore.create(tmp_path / "run", {"job": older.resolved(), "data": record})
    other = nas.make_job({**mapping, "seed": 1, "supernet": {"epochs": 2}})
    assert WarmStart.of(other, store.folder, record).why.endswith("seed, supernet differ")
