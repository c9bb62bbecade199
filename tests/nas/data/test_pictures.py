"""Picture files from anywhere: right way up, right values, and what is wrong told at the start."""

from __future__ import annotations

import os
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data.pictures import (
    DamagedPicture,
    inspect_pictures,
    open_picture,
    readable,
    suited_crops,
)
from nas.data.splits import FileImages, load_splits
from nas.job.sections.data import DataConfig
from search_spaces.errors import InputError


def folder_job(path, **more) -> DataConfig:
    return DataConfig(name="image_folder", path=str(path), image_size=16, **more)


def save(path, i: int = 0, size=(20, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash((path.parent.name, i))) % 2**32)
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def pictures(tmp_path):
    for name in ("ant", "bee"):
        for i in range(10):
            save(tmp_path / name / f"{i}.png", i)
    return tmp_path


def loaded(path, **more):
    """Paths of the training, validation and test images, relative to the folder."""
    splits = load_splits(folder_job(path, **more), 0)
    return {
        name: {str(part.images.paths[i].relative_to(path)) for i in part.indices.tolist()}
        for name, part in (
            ("train", splits.train),
            ("validation", splits.validation),
            ("test", splits._test),
        )
    }


# ---------------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Training", "Validation", "Testing"), ("TRAIN", "dev", "Test")],
)
def test_parts_have_many_names_and_are_never_classes(tmp_path, train, validation, test):
    for part in (train, validation, test):
        for name in ("ant", "bee"):
            for i in range(4):
                save(tmp_path / part / name / f"{i}.png", i)
    found = loaded(tmp_path)
    for names, part in ((found["train"], train), (found["validation"], validation),
                        (found["test"], test)):  # fmt: skip
        assert len(names) == 8 and all(name.startswith(part + "/") for name in names)
    assert load_splits(folder_job(tmp_path), 0).classes == ("ant", "bee")


def test_folders_that_could_both_be_a_part_are_refused(tmp_path):
    for part in ("train", "Training"):
        for name in ("ant", "bee"):
            save(tmp_path / part / name / "0.png")
    with pytest.raises(InputError, match="could both be the train set"):
        load_splits(folder_job(tmp_path), 0)
    os.rename(tmp_path / "train", tmp_path / "other")
    os.rename(tmp_path / "Training", tmp_path / "Testing")
    with pytest.raises(InputError, match="no train folder"):
        load_splits(folder_job(tmp_path), 0)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train", "test"):
        for i in range(8):
            save(tmp_path / name / f"{i}.png", i)
    assert load_splits(folder_job(tmp_path), 0).classes == ("bus", "test", "train")


def test_hidden_files_and_folders_are_no_pictures(pictures):
    before = loaded(pictures)
    for hidden in (".ipynb_checkpoints", "__MACOSX", ".Trash/deep"):
        save(pictures / "ant" / hidden / "0-copy.png")
        save(pictures / hidden / "0.png")
    save(pictures / "bee" / "._0.png")
    assert loaded(pictures) == before


def test_links_to_folders_are_followed_and_loops_end(pictures, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    for i in range(5):
        save(elsewhere / "more" / f"{i}.png", 100 + i)
        save(elsewhere / "cat" / f"{i}.png", 200 + i)
    (pictures / "ant" / "linked").symlink_to(elsewhere / "more")
    (pictures / "ant" / "loop").symlink_to(pictures / "ant")
    (pictures / "cat").symlink_to(elsewhere / "cat")
    found = set.union(*loaded(pictures, test=0.2, validation=0.2).values())
    assert {f"ant/linked/{i}.png" for i in range(5)} <= found
    assert {f"cat/{i}.png" for i in range(5)} <= found
    assert len(found) == 30


def test_names_that_are_no_utf8_are_read_and_shown(tmp_path):
    root = os.fsencode(tmp_path)
    try:
        os.mkdir(root + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    os.mkdir(root + b"/th\xc3\xa9")
    for i in range(8):
        source = save(tmp_path / f"{i}.png", i)
        os.link(source, root + b"/caf\xe9/%d-\xfc.png" % i)
        os.rename(source, root + b"/th\xc3\xa9/%d.png" % i)
    splits = load_splits(folder_job(tmp_path), 0)
    assert splits.classes == ("café", "thé")
    assert all(part["source_sha256"] for part in splits.record()["splits"].values())
    with open(root + b"/caf\xe9/0-\xfc.png", "r+b") as file:
        file.truncate(30)
    with pytest.raises(InputError, match=r"café/0-ü\.png: cannot be read"):
        load_splits(folder_job(tmp_path), 0)
    assert readable(os.fsdecode(b"\xe9")) == "é" and readable("thé") == "thé"


# ----------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_camera_says(tmp_path, orientation):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 255  # one corner
    upright = Image.fromarray(pixels)
    # What a camera stores whose picture is upright once it is turned.
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright
    if orientation != 1:
        stored = upright.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    found = np.asarray(open_picture(tmp_path / "a.png", 3))
    np.testing.assert_array_equal(found, pixels)


def test_float_and_deep_grey_pictures_keep_their_values_or_are_refused(tmp_path):
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    expected = np.round(ramp * 255)
    Image.fromarray(ramp).save(tmp_path / "unit.tif")
    Image.fromarray((ramp * 65535).astype(np.uint16)).save(tmp_path / "deep.tif")
    for name in ("unit.tif", "deep.tif"):
        found = np.asarray(open_picture(tmp_path / name, 1)).astype(int)
        assert np.abs(found - expected).max() <= 1
    bad = [ramp * 255, ramp - 0.5, np.where(ramp > 0.5, np.nan, ramp)]
    for values in bad:
        Image.fromarray(values.astype(np.float32)).save(tmp_path / "other.tif")
        with pytest.raises(DamagedPicture, match=r"other.tif.*floats from"):
            open_picture(tmp_path / "other.tif", 1)
        with pytest.raises(DamagedPicture, match=r"other.tif.*floats from"):
            inspect_pictures([tmp_path / "other.tif"])
    Image.fromarray(np.full((8, 8), 70000, np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(DamagedPicture, match=r"wide.tif.*integers from 70000"):
        open_picture(tmp_path / "wide.tif", 1)


def bomb(path, side: int):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_picture_that_unpacks_to_gigabytes_is_refused_unread(pictures, side):
    bomb(pictures / "ant" / "bomb.png", side)
    with pytest.raises(InputError, match=r"bomb.png: cannot be read as an image \(.*pixels"):
        load_splits(folder_job(pictures), 0)


@pytest.mark.parametrize("form", ["png", "jpg", "bmp", "webp", "tif", "ppm"])
def test_every_file_that_is_cut_off_is_named_before_any_work(pictures, form):
    whole = save(pictures / "ant" / f"whole.{form}", size=(64, 64))
    load_splits(folder_job(pictures), 0)
    bad = [pictures / "bee" / f"cut.{form}", pictures / "ant" / f"empty.{form}"]
    data = whole.read_bytes()
    bad[0].write_bytes(data[: len(data) // 2])
    bad[1].write_bytes(b"")
    with pytest.raises(InputError) as found:
        load_splits(folder_job(pictures), 0)
    assert "2 pictures cannot be used" in str(found.value)
    assert all(str(path) in str(found.value) for path in bad)


def test_the_error_travels_between_processes():
    error = DamagedPicture("a/b.png", "cut off")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.path == error.path


def test_a_picture_found_damaged_may_be_repaired_and_no_other_may_change(pictures):
    paths = tuple(sorted(pictures.rglob("*.png")))
    images = FileImages(paths, size=16, channels=3)
    save(paths[3], 77)
    begun = images.fingerprint()
    damaged = images.digest(paths[3])
    save(paths[3], 3)
    assert images.fingerprint() != begun
    assert images.fingerprint({str(paths[3]): damaged}) == begun
    save(paths[4], 99)
    assert images.fingerprint({str(paths[3]): damaged}) != begun


def test_crops_of_files_still_have_the_asked_size(pictures):
    images = FileImages(tuple(sorted(pictures.rglob("*.png"))), size=16, channels=1)
    assert images.at(torch.arange(3)).shape == (3, 1, 16, 16)


@pytest.mark.parametrize("side", [8, 28, 32, 64, 65, 96, 224])
def test_small_pictures_are_shifted_a_little_and_large_ones_cropped(side):
    suited = suited_crops(side)
    shifted, cropped = suited["crop_padding"] > 0, suited["scale"] < 1
    assert shifted != cropped
    assert suited["crop_padding"] <= side / 8
    assert suited["scale"] >= 0.5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_what_is_transparent_is_white(tmp_path, mode):
    # A black square of 4 pixels on nothing, below which there is black as well; half opaque once.
    opaque = np.zeros((8, 8), np.uint8)
    opaque[2:4, 2:4] = 255
    expected = 255 - opaque.astype(int)
    path = tmp_path / "drawing.png"
    if mode in ("RGBA", "LA"):
        opaque[6, 6], expected[6, 6] = 51, 204  # a fifth of black over white
        levels = [np.zeros((8, 8), np.uint8)] * (len(mode) - 1)
        Image.fromarray(np.stack([*levels, opaque], axis=2), mode).save(path)
    else:
        # Another way of files to say it: one colour, here the darkest but one, is transparent.
        values = np.where(opaque, 0, 1).astype(np.uint8)
        image = Image.fromarray(values).convert(mode if mode != "P" else "L")
        if mode == "P":
            image = Image.fromarray(values, "P")
            image.putpalette([0, 0, 0, 1, 1, 1])
        image.save(path, transparency=(1, 1, 1) if mode == "RGB" else 1)
    for channels in (1, 3):
        pixels = np.asarray(open_picture(path, channels)).astype(int)
        assert (pixels.reshape(8, 8, channels) == expected[:, :, None]).all()


def test_opaque_pictures_stay_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    pixels[:, :, 3] = 255
    Image.fromarray(pixels, "RGBA").save(tmp_path / "opaque.png")
    assert (np.asarray(open_picture(tmp_path / "opaque.png", 3)) == pixels[:, :, :3]).all()
