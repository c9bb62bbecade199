"""Small pictures are decoded once; what they show is the same as when decoded each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data.held import HeldImages, holds
from nas.data.images import Crops, FileImages, MemoryImages, cut_of
from search_spaces.errors import InputError


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for index in range(9):
        found.append(tmp_path / f"{index}.png")
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(found[-1])
    return tuple(found)


def test_held_images_are_those_of_the_files_and_outlive_them(paths):
    files = FileImages(paths, size=20, channels=3)
    held = HeldImages(FileImages(paths, size=20, channels=3))
    assert held.fingerprint() == files.fingerprint()
    wanted = torch.tensor([3, 0, 8, 3])
    expected = files.at(wanted)
    assert torch.equal(held.at(wanted), expected)
    whole = Crops(np.ones(4), np.ones(4), np.zeros(4), np.zeros(4))
    assert torch.equal(held.at(wanted, whole), expected)
    for path in paths:
        path.unlink()
    assert torch.equal(held.at(wanted), expected)


def test_a_damaged_file_is_named(paths):
    paths[4].write_bytes(paths[4].read_bytes()[:40])
    with pytest.raises(InputError, match=r"4\.png"):
        HeldImages(FileImages(paths, size=20, channels=3)).at(torch.tensor([0]))


def test_only_what_fits_and_loses_nothing_is_held(paths, monkeypatch):
    assert holds(FileImages(paths, size=20, channels=3))
    assert holds(FileImages(paths, size=18, channels=1))
    # Crops of a picture with more detail than the image are cut from the file.
    assert not holds(FileImages(paths, size=16, channels=3))
    monkeypatch.setattr("nas.data.held.HELD_BYTES", 9 * 3 * 20**2 - 1)
    assert not holds(FileImages(paths, size=20, channels=3))


def test_a_picture_is_seen_to_its_edges_unless_there_is_enough_of_it(tmp_path):
    ramp = np.tile(np.arange(0, 160, 5, dtype=np.uint8), (32, 1))
    path = tmp_path / "ramp.png"
    Image.fromarray(ramp).save(path)

    def row(size):
        return FileImages((path,), size=size, channels=1).at(torch.tensor([0]))[0, 0, 0].tolist()

    assert row(32) == ramp[0].tolist()
    assert row(30) == ramp[0, 1:31].tolist()
    # Large enough for the usual transform: the middle seven eighths.
    assert row(28) == ramp[0, 2:30].tolist()
    assert row(14) == pytest.approx([12.5 + 10 * i for i in range(14)], abs=4)
    assert len(row(64)) == 64


@pytest.mark.parametrize("sides", [(300, 200), (90, 70), (64, 100), (40, 50)])
def test_what_a_card_says_of_pictures_is_what_networks_see(tmp_path, sides):
    """Cut and scaled by hand as the card has it."""
    pixels = np.random.default_rng(0).integers(0, 256, (*sides[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files = FileImages((tmp_path / "a.png",), size=64, channels=3)
    cut = cut_of(files)
    assert cut is not None and cut["part"] == "middle"
    shorter = min(sides)
    side = min(shorter, max(cut["size"], cut["share"] * shorter))
    left, top = (sides[0] - side) / 2, (sides[1] - side) / 2
    made = Image.fromarray(pixels).resize(
        (cut["size"],) * 2, Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    assert np.array_equal(np.asarray(made).transpose(2, 0, 1), files.at(torch.tensor([0]))[0])
    whole = FileImages((tmp_path / "a.png",), size=64, channels=3, whole=True)
    assert cut_of(whole) == {"part": "whole", "size": 64}
    made = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(made).transpose(2, 0, 1), whole.at(torch.tensor([0]))[0])
    assert cut_of(MemoryImages(files.at(torch.tensor([0])))) is None
