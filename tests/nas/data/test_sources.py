import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from nas.data import sources as data_sources
from nas.data.sources import DATA_SOURCES, ImageArrays, ImageFiles, read_idx
from nas.job.sections.data import DataConfig
from search_spaces.errors import EnvironmentProblem, InputError


def write_idx(path, array):
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def fashion(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 10)):
        pixels = rng.integers(0, 256, (count, 28, 28))
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


def test_digits_are_bytes_of_the_full_range():
    raw = DATA_SOURCES.get("digits")(DataConfig(name="digits"))
    assert isinstance(raw.train, ImageArrays)
    assert raw.train.images.shape == (1797, 1, 8, 8)
    assert raw.train.images.dtype == np.uint8
    assert (raw.train.images.min(), raw.train.images.max()) == (0, 255)
    assert raw.test is None


@pytest.mark.parametrize("name", ["a-idx3-ubyte", "a-idx3-ubyte.gz"])
def test_idx_round_trip(tmp_path, name):
    array = np.arange(24).reshape(2, 3, 4)
    write_idx(tmp_path / name, array)
    np.testing.assert_array_equal(read_idx(tmp_path / name), array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an idx file"),
        (b"\x00\x00\x0d\x01" + bytes(8), "not an idx file"),
        (b"\x00\x00\x08\x03" + bytes(4), "header is cut short"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", "holds 3 values, its header says 5"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x01abc", "holds 3 values, its header says 1"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, data, message):
    path = tmp_path / "a"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_idx(path)


def test_a_truncated_gzip_file_is_refused(fashion):
    path = fashion / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged gzip"):
        read_idx(path)


def test_fashion_mnist_from_a_folder(fashion):
    raw = DATA_SOURCES.get("fashion_mnist")(DataConfig(name="fashion_mnist", path=str(fashion)))
    assert raw.train.images.shape == (40, 1, 28, 28)
    assert raw.test.images.shape == (10, 1, 28, 28)
    assert len(raw.classes) == 10


def test_fashion_mnist_is_found_where_debian_puts_it(fashion, monkeypatch):
    monkeypatch.setattr(data_sources, "DEBIAN_FASHION_MNIST", fashion)
    raw = DATA_SOURCES.get("fashion_mnist")(DataConfig(name="fashion_mnist"))
    assert raw.origin == str(fashion)


def test_missing_fashion_mnist_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(data_sources, "DEBIAN_FASHION_MNIST", tmp_path)
    with pytest.raises(EnvironmentProblem, match="dataset-fashion-mnist"):
        DATA_SOURCES.get("fashion_mnist")(DataConfig(name="fashion_mnist"))
    with pytest.raises(EnvironmentProblem, match="holds no train-images"):
        DATA_SOURCES.get("fashion_mnist")(DataConfig(name="fashion_mnist", path=str(tmp_path)))


def test_labels_that_do_not_match_the_images(fashion):
    write_idx(fashion / "train-labels-idx1-ubyte", np.arange(39) % 10)
    with pytest.raises(InputError, match="do not match"):
        DATA_SOURCES.get("fashion_mnist")(DataConfig(name="fashion_mnist", path=str(fashion)))


@pytest.mark.parametrize(
    ("name", "files", "labels"),
    [
        ("cifar10", ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"), 1),
        ("cifar100", ("train.bin", "test.bin"), 2),
    ],
)
def test_cifar_in_its_binary_form(tmp_path, name, files, labels):
    rng = np.random.default_rng(0)
    expected = []
    for file in files:
        records = rng.integers(0, 256, (5, labels + 3072), dtype=np.uint8)
        records[:, :labels] = np.arange(5)[:, None] + np.arange(labels)
        records.tofile(tmp_path / file)
        expected.append(records)
    raw = DATA_SOURCES.get(name)(DataConfig(name=name, path=str(tmp_path)))
    assert raw.train.images.shape == (5 * (len(files) - 1), 3, 32, 32)
    # The fine label is the last one; the red plane comes first, row by row.
    np.testing.assert_array_equal(raw.test.labels, expected[-1][:, labels - 1])
    np.testing.assert_array_equal(
        raw.test.images[2, 0, 1], expected[-1][2, labels + 32 : labels + 64]
    )


def test_missing_cifar_says_how_to_get_it(tmp_path):
    with pytest.raises(EnvironmentProblem, match=r"data.download: true"):
        DATA_SOURCES.get("cifar10")(DataConfig(name="cifar10", path=str(tmp_path)))


@pytest.fixture
def pictures(tmp_path):
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        for c, name in enumerate(("ant", "bee")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (20, 12), (100 * c, 10 * i, 0)).save(folder / f"{i}.png")
            (folder / "notes.txt").write_text("no image")
    return tmp_path


def test_image_folders_with_their_own_parts(pictures):
    raw = DATA_SOURCES.get("image_folder")(DataConfig(name="image_folder", path=str(pictures)))
    assert isinstance(raw.train, ImageFiles)
    assert [len(part.paths) for part in (raw.train, raw.validation, raw.test)] == [12, 4, 6]
    assert raw.classes == ("ant", "bee")
    assert raw.train.labels.tolist() == [0] * 6 + [1] * 6


def test_one_image_folder_without_parts(pictures):
    config = DataConfig(name="image_folder", path=str(pictures / "train"))
    raw = DATA_SOURCES.get("image_folder")(config)
    assert len(raw.train.paths) == 12
    assert raw.test is None and raw.validation is None


def test_image_folders_that_cannot_be_used(pictures, tmp_path):
    load = DATA_SOURCES.get("image_folder")
    (pictures / "test" / "cat").mkdir()
    with pytest.raises(InputError, match="'cat' is not among the training classes"):
        load(DataConfig(name="image_folder", path=str(pictures)))
    with pytest.raises(InputError, match="at least two class folders"):
        load(DataConfig(name="image_folder", path=str(pictures / "train" / "ant")))
    (pictures / "train" / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        load(DataConfig(name="image_folder", path=str(pictures / "train")))
    with pytest.raises(EnvironmentProblem, match="not a folder"):
        load(DataConfig(name="image_folder", path=str(tmp_path / "nowhere")))


def test_videos_among_pictures_are_refused_with_what_to_do(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / label / "0.png")
    (tmp_path / "b" / "clip.MP4").write_bytes(b"film")
    config = DataConfig(name="image_folder", path=str(tmp_path))
    with pytest.raises(InputError, match=r"clip\.MP4 is a video; save its frames.*ffmpeg -i clip"):
        DATA_SOURCES.get("image_folder")(config)


def test_classes_a_folder_deeper_are_pointed_to(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "all" / label).mkdir(parents=True)
    config = DataConfig(name="image_folder", path=str(tmp_path))
    with pytest.raises(InputError, match=r"found 1; those in it may be meant: data\.path: .*all"):
        DATA_SOURCES.get("image_folder")(config)
