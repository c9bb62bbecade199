"""Weights to start from must not know the images that judge what becomes of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nas
from nas.record.run_folder import RunStore
from nas.stages.learnt_before import require_unseen
from nas.stages.opened_job import loaded
from search_spaces.errors import InputError


def run_of(job, folder: Path) -> Path:
    """Write what is left of a run of ``job``, and return its weights' path."""
    _, splits = loaded(job)
    RunStore.create(folder, {"job": job.resolved(), "data": splits.record()})
    weights = folder / "supernet" / "checkpoint.safetensors"
    weights.parent.mkdir()
    weights.touch()
    return weights


def job_of(tmp_path: Path, job: str, *, seed: int = 0, weights: Path | None = None, **data):
    supernet = {"epochs": 1} | ({"init_from": str(weights)} if weights else {})
    mapping = {"name": job, "seed": seed, "data": data, "supernet": supernet}
    path = tmp_path / f"{job}.yaml"
    path.write_text(json.dumps(mapping))
    return nas.load_job(path)


def looked_at(job) -> list[str]:
    _, splits = loaded(job)
    return require_unseen(job, splits, splits.record())


def pictures(folder: Path, numbers) -> None:
    random = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            pixels = random.integers(0, 255, (12, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:02}.png")


def test_weights_of_another_division_are_refused_with_how_many_images_they_know(tmp_path):
    older = job_of(tmp_path, "older", name="digits", validation=0.2)
    weights = run_of(older, tmp_path / "run")
    assert looked_at(job_of(tmp_path, "same", weights=weights, name="digits", validation=0.2)) == []
    other = job_of(tmp_path, "other", seed=1, weights=weights, name="digits", validation=0.2)
    learnt = set(loaded(older)[1].train.indices.tolist())
    known = len(learnt & set(loaded(other)[1].test_indices.tolist()))
    assert known > 100
    with pytest.raises(InputError, match=rf"learnt from {known} of the 359 test examples"):
        looked_at(other)


def test_fewer_training_images_of_one_division_are_no_matter(tmp_path):
    weights = run_of(job_of(tmp_path, "older", name="digits", train=300), tmp_path / "run")
    assert looked_at(job_of(tmp_path, "more", weights=weights, name="digits")) == []


def test_images_of_another_size_are_the_same_images(tmp_path):
    weights = run_of(job_of(tmp_path, "older", name="digits"), tmp_path / "run")
    large = {"name": "digits", "image_size": 16}
    assert looked_at(job_of(tmp_path, "same", weights=weights, **large)) == []
    with pytest.raises(InputError, match="test examples"):
        looked_at(job_of(tmp_path, "other", seed=3, weights=weights, **large))


def test_a_folder_that_pictures_came_to_is_another_division(tmp_path):
    folder = {"name": "image_folder", "path": str(tmp_path / "photos"), "image_size": 12}
    pictures(tmp_path / "photos", range(20))
    weights = run_of(job_of(tmp_path, "older", **folder), tmp_path / "run")
    pictures(tmp_path / "photos", range(20, 30))
    with pytest.raises(InputError, match="nobody can tell how many of the 12 test examples"):
        looked_at(job_of(tmp_path, "more", weights=weights, **folder))


def test_a_test_set_of_its_own_is_unseen_but_validation_may_not_be(tmp_path):
    folder = {"name": "image_folder", "path": str(tmp_path / "photos"), "image_size": 12}
    pictures(tmp_path / "photos" / "train", range(20))
    pictures(tmp_path / "photos" / "test", range(40, 50))
    weights = run_of(job_of(tmp_path, "older", **folder), tmp_path / "run")
    (warning,) = looked_at(job_of(tmp_path, "other", seed=1, weights=weights, **folder))
    assert "validation examples" in warning and "seed 0 there, 1 here" in warning


def test_what_the_older_run_began_with_counts_too(tmp_path):
    folder = {"name": "image_folder", "path": str(tmp_path / "photos"), "image_size": 12}
    pictures(tmp_path / "photos", range(20))
    first = run_of(job_of(tmp_path, "first", name="digits"), tmp_path / "first-run")
    second = run_of(job_of(tmp_path, "second", weights=first, **folder), tmp_path / "second-run")
    assert looked_at(job_of(tmp_path, "third", weights=second, name="digits")) == []
    with pytest.raises(InputError, match="first-run"):
        looked_at(job_of(tmp_path, "fourth", seed=1, weights=second, name="digits"))


def test_weights_of_no_run_say_nothing(tmp_path):
    (tmp_path / "own.safetensors").touch()
    weights = tmp_path / "own.safetensors"
    assert looked_at(job_of(tmp_path, "own", weights=weights, name="digits")) == []
