"""What is seen of a folder of pictures, and the job that is written for it."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from nas.job.check import load_job
from nas.job.survey import Survey, survey_pictures
from nas.job.template import job_text
from search_spaces.errors import EnvironmentProblem, InputError


def _folder(root, count, sizes, mode="RGB"):
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        for index in range(count):
            width, height = sizes[index % len(sizes)]
            shape = (height, width, 3) if mode == "RGB" else (height, width)
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels, mode).save(root / name / f"{index}.png")
    return root


def test_sides_channels_and_counts_are_seen(tmp_path):
    assert survey_pictures(_folder(tmp_path / "a", 6, [(40, 30), (30, 50), (90, 30)])) == Survey(
        pictures=12, classes=2, side=30, grey=False
    )
    assert survey_pictures(_folder(tmp_path / "b", 3, [(28, 28)], "L")) == Survey(6, 2, 28, True)
    with pytest.raises(EnvironmentProblem, match="not a folder"):
        survey_pictures(tmp_path / "nowhere")
    (tmp_path / "b" / "cats" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"bad\.png"):
        survey_pictures(tmp_path / "b")


@pytest.mark.parametrize(
    ("survey", "preset", "side", "batch"),
    [
        (Survey(20_000, 10, 28, grey=True), "32x32-lean", 28, None),
        (Survey(60_000, 10, 8, grey=True), "8x8-lean", 8, None),
        (Survey(3_000, 5, 64, grey=False), "64x64-lean", 64, 64),
        (Survey(800, 2, 1200, grey=False), "128x128-lean", 128, 32),
    ],
)
def test_the_job_suits_the_pictures(tmp_path, survey, preset, side, batch):
    (tmp_path / "pictures").mkdir()
    text = job_text("image_folder", path="pictures", survey=survey)
    (tmp_path / "job.yaml").write_text(text, encoding="utf-8")
    job = load_job(tmp_path / "job.yaml")
    assert job.space.preset == preset
    assert (job.data.image_size, job.data.channels) == (side, 1 if survey.grey else 3)
    assert yaml.safe_load(text)["space"]["resolutions"][-1] == side
    assert 10 <= job.budget.minutes <= 25
    if batch is not None:
        assert job.supernet.batch_size == job.finetune.batch_size == batch
