"""The set of letters: fonts of the test part are unseen, and the same seed gives the same."""

from __future__ import annotations

import pytest

from experiments.value import letters
from nas.data.splits import load_splits
from nas.job.sections.data import DataConfig
from search_spaces.errors import EnvironmentProblem


@pytest.fixture
def fonts(monkeypatch):
    """A dozen names of families for the fonts that are here."""
    try:
        found = [p for paths in letters.system_fonts().values() for p in paths]
    except EnvironmentProblem as error:
        pytest.skip(str(error))
    found = [path for path in found if letters.draws_letters(path)][:12]
    if len(found) < 12:
        pytest.skip("fewer than twelve fonts are installed")
    families = {f"family {i:02d}": [path] for i, path in enumerate(found)}
    monkeypatch.setattr(letters, "system_fonts", lambda: families)
    return families


def test_the_set_is_whole_and_repeatable(fonts, tmp_path):
    about = letters.write_letters(tmp_path / "a", 200, seed=3)
    again = letters.write_letters(tmp_path / "b", 200, seed=3)
    other = letters.write_letters(tmp_path / "c", 200, seed=4)
    assert about == again and about["pixels_sha256"] != other["pixels_sha256"]
    train, test = (set(about["families"][part]) for part in ("train", "test"))
    assert not train & test and train | test == set(fonts)
    splits = load_splits(
        DataConfig(
            name="image_folder",
            path=str(tmp_path / "a"),
            channels=1,
            image_size=28,
            validation=40,
            calibration=20,
        ),
        seed=0,
    )
    assert splits.classes == tuple(letters.LETTERS)
    assert (len(splits.train), len(splits.validation)) == (120, 40)
    assert len(splits.test("here")) == 40


def test_too_few_fonts_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(letters, "system_fonts", dict)
    with pytest.raises(EnvironmentProblem, match="fonts-"):
        letters.write_letters(tmp_path / "a", 10, seed=0)
    assert not (tmp_path / "a").exists()
