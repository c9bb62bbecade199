import numpy as np
import pytest

from nas.data.signals.source import roughness, signal_numpy, signal_ts
from nas.data.splits import load_splits
from nas.job.sections.data import DataConfig
from search_spaces.errors import EnvironmentProblem, InputError

TS = """# a comment
@problemName Waves
@timeStamps false
@missing false
@univariate {univariate}
@equalLength true
@classLabel true 10 9
@data
"""


def config(name, folder, **rest):
    return DataConfig(name=name, path=str(folder), **rest)


def write_ts(folder, lines, part="TRAIN", name="Waves", header=TS):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}_{part}.ts"
    path.write_text(header + "\n".join(lines) + "\n")
    return path


def test_a_problem_of_the_archive_is_read_with_its_channels_and_test_set(tmp_path):
    write_ts(tmp_path, ["1,2,3:4,5,6:9", "7,8,9:1,1,1:10"] * 6)
    write_ts(tmp_path, ["0,0,1:1,0,0:10"], part="TEST")
    raw = signal_ts(config("signal_ts", tmp_path))
    assert raw.classes == ("9", "10")  # numbers by value
    assert raw.train.images.shape == (12, 2, 1, 3) and raw.train.images.dtype == np.float32
    assert raw.train.images[0, 1, 0].tolist() == [4, 5, 6]
    assert raw.train.labels.tolist()[:2] == [0, 1] and raw.test.labels.tolist() == [1]
    assert raw.image_size == (1, 3) and raw.targets == "classes"


@pytest.mark.parametrize("period, cut", [(40, True), (2.1, False)])
def test_windows_are_stretched_where_values_follow_from_their_neighbours(tmp_path, period, cut):
    waves = np.sin(2 * np.pi * np.arange(100) / period + np.arange(12)[:, None])
    lines = [",".join(map(str, wave)) + f":{10 - i % 2}" for i, wave in enumerate(waves)]
    write_ts(tmp_path, lines, header=TS.format(univariate="true"))
    assert (signal_ts(config("signal_ts", tmp_path)).scale < 1) == cut


def test_how_rough_signals_are():
    """By hand: 0, 1, 0, 1 is 1 from the mean of its neighbours, and its deviation is 0.5."""
    jumps = np.tile([0.0, 1.0], 10)[None, None, None]
    line = np.arange(20.0)[None, None, None]
    assert roughness(jumps) == pytest.approx(2.0)
    assert roughness(line) == pytest.approx(0.0)
    assert roughness(np.concatenate([line, jumps], axis=1)) == pytest.approx(2.0)
    assert roughness(np.ones((1, 1, 1, 9))) == roughness(np.ones((3, 1, 1, 2))) == 0.0


def test_a_number_to_predict_is_one_target(tmp_path):
    header = "@problemName R\n@equalLength true\n@targetlabel true\n@data\n"
    write_ts(tmp_path, ["1,2:0.5", "3,4:-1.25"], header=header)
    raw = signal_ts(config("signal_ts", tmp_path))
    assert raw.targets == "values" and raw.train.labels.tolist() == [[0.5], [-1.25]]


def test_every_mistake_of_a_ts_file_is_told_with_its_line(tmp_path):
    path = write_ts(tmp_path, ["1,2,3:9", "1,2:9", "1,?,3:9", "1,nan,3:10", "1,x,3:9", "1,2,3:7"])
    with pytest.raises(InputError) as error:
        signal_ts(config("signal_ts", tmp_path))
    told = str(error.value)
    for line, words in (
        (10, "1 channels of 2 values; the case in line 9 has 1 of 3"),
        (11, "value 2 is missing (?)"),
        (12, "value 2 is missing (nan)"),
        (13, "'x' is no number"),
        (14, "class '7' is not in the header"),
    ):
        assert f"{path}:{line}: " in told and words in told
    assert "cut, pad or resample" in told


@pytest.mark.parametrize(
    ("unequal", "short"), [("pad", [0.0, 2.0, 2.0, 2.0]), ("stretch", [0.0, 2 / 3, 4 / 3, 2.0])]
)
def test_series_of_unequal_length_are_padded_or_stretched_where_asked(tmp_path, unequal, short):
    write_ts(tmp_path, ["1,2,3,4:9", "0,2:10"])
    write_ts(tmp_path, ["5,6,7,8,9:9"], part="TEST")
    with pytest.raises(InputError, match=r"data.options.unequal: pad"):
        signal_ts(config("signal_ts", tmp_path))
    raw = signal_ts(config("signal_ts", tmp_path), unequal=unequal)
    assert raw.image_size == (1, 4)
    np.testing.assert_allclose(raw.train.images[:, 0, 0], [[1, 2, 3, 4], short], rtol=1e-6)
    assert raw.test.images.shape == (1, 1, 1, 4)
    assert (
        "their last value" in raw.input_text if unequal == "pad" else "stretched" in raw.input_text
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("1,2,3\n", "does not begin with @ or #"),
        ("@problemName x\n", "has no @data line"),
        ("@timeStamps true\n@data\n1,2:1\n", "time stamps"),
        ("@classLabel true 1 2\n@data\n", "holds no case"),
    ],
)
def test_files_that_are_no_problem_of_the_archive_are_refused(tmp_path, text, message):
    (tmp_path / "A_TRAIN.ts").write_text(text)
    with pytest.raises(InputError, match=message):
        signal_ts(config("signal_ts", tmp_path))


def test_a_folder_without_or_with_several_problems_says_so(tmp_path):
    with pytest.raises(EnvironmentProblem, match=r"holds no NAME_TRAIN.ts"):
        signal_ts(config("signal_ts", tmp_path))
    for name in ("A", "B"):
        write_ts(tmp_path, ["1,2:9", "3,4:10"], name=name)
    with pytest.raises(InputError, match=r"several problems \(A, B\).*data.options.problem"):
        signal_ts(config("signal_ts", tmp_path))
    assert signal_ts(config("signal_ts", tmp_path), problem="B").origin.endswith("B_TRAIN")


@pytest.mark.parametrize("packed", [True, False])
def test_numpy_arrays_are_read_from_files_or_one_archive(tmp_path, packed):
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.normal(size=(30, 2, 20)), "y_train": np.arange(30) % 3,
              "groups": np.arange(30) // 5}  # fmt: skip
    if packed:
        np.savez(tmp_path / "all.npz", **arrays)
    else:
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
    splits = load_splits(config("signal_numpy", tmp_path, validation=0.3), 0, kind="classes")
    assert splits.input_shape == (2, 1, 20) and splits.classes == ("0", "1", "2")
    group = {
        name: set((part.indices // 5).tolist())
        for name, part in (("train", splits.train), ("validation", splits.validation),
                           ("test", splits._test))
    }  # fmt: skip
    assert not group["train"] & group["validation"] and not group["train"] & group["test"]
    assert not group["validation"] & group["test"]
    assert sum(map(len, (splits.train, splits.validation, splits._test))) == 30


def test_recordings_of_a_class_are_in_every_set(tmp_path):
    """Ten broken machines of forty, three recordings each."""
    machine = np.arange(120) // 3
    np.savez(tmp_path / "all.npz", x_train=np.random.default_rng(0).normal(size=(120, 8)),
             y_train=machine % 4 == 0, groups=machine)  # fmt: skip
    for seed in range(8):
        splits = load_splits(config("signal_numpy", tmp_path, validation=0.2), seed, kind="classes")
        for part in (splits.train, splits.validation, splits._test):
            broken = part.labels[part.indices].float().mean()
            assert broken == pytest.approx(0.25, abs=0.1)


def test_groups_are_drawn_whatever_they_are_of_where_asked(tmp_path):
    machine = np.arange(120) // 3
    np.savez(tmp_path / "all.npz", x_train=np.random.default_rng(0).normal(size=(120, 8)),
             y_train=machine % 4 == 0, groups=machine)  # fmt: skip
    how = config("signal_numpy", tmp_path, validation=0.2, stratify=False)
    parts = [load_splits(how, seed, kind="classes").validation for seed in range(8)]
    broken = [float(part.labels[part.indices].float().mean()) for part in parts]
    assert max(abs(share - 0.25) for share in broken) > 0.15


def test_wrong_arrays_are_told_at_once(tmp_path):
    x = np.zeros((6, 8))
    x[2, 3], x[5, 0] = np.nan, np.inf
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(6) % 2, x_test=x[:, :4],
             y_test=np.zeros(5))  # fmt: skip
    with pytest.raises(InputError) as error:
        signal_numpy(config("signal_numpy", tmp_path))
    told = str(error.value)
    assert "x_train: record 2" in told and "x_train: record 5" in told
    assert "y_test: 5 targets for 6 signals" in told
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects.npy: no NumPy file of numbers"):
        signal_numpy(config("signal_numpy", tmp_path))


@pytest.mark.parametrize(
    "targets, kind, classes",
    [
        (np.arange(12) % 3, "classes", ("0", "1", "2")),
        ((np.arange(12) % 3).astype(float), "classes", ("0", "1", "2")),
        (np.eye(3)[np.arange(12) % 3], "classes", ("0", "1", "2")),
        (np.arange(12)[:, None] % 2, "classes", ("0", "1")),
        (np.arange(12) / 7, "values", ("y",)),
        (np.arange(24).reshape(12, 2) % 2, "labels", ("y0", "y1")),
        (np.arange(24).reshape(12, 2) / 2, "values", ("y0", "y1")),
    ],
)
def test_the_kind_of_targets_is_told_by_their_values(tmp_path, targets, kind, classes):
    if kind == "labels":
        targets[0] = 0  # no row of labels alone has one 1
    np.savez(tmp_path / "all.npz", x_train=np.ones((12, 5)), y_train=targets)
    raw = signal_numpy(config("signal_numpy", tmp_path))
    assert (raw.targets, raw.classes) == (kind, classes)


@pytest.mark.parametrize(
    "targets, kind, words",
    [
        (
            np.arange(24).reshape(12, 2),
            "classes",
            r"y_train: \(2,\) numbers .* no class; .*one-hot",
        ),
        (np.arange(12) / 7, "classes", "12 different numbers in 12 examples.*signal_regression"),
        (np.arange(12) % 3, "labels", r"record 2: labels are 0 or 1 each, not \[2.0\]"),
        (np.array(["a"] * 12), "values", "<U1 are no numbers"),
        (np.arange(12) % 3, "boxes", "signal_numpy holds classes, labels or values, no boxes"),
    ],
)
def test_targets_of_another_kind_are_refused(tmp_path, targets, kind, words):
    np.savez(tmp_path / "all.npz", x_train=np.ones((12, 5)), y_train=targets)
    with pytest.raises(InputError, match=words):
        signal_numpy(config("signal_numpy", tmp_path), kind=kind)


def test_sets_of_other_shapes_are_refused(tmp_path):
    y = np.arange(12) % 3
    np.savez(tmp_path / "all.npz", x_train=np.ones((12, 3, 5)), y_train=y,
             x_test=np.ones((12, 2, 5)), y_test=y)  # fmt: skip
    with pytest.raises(
        InputError, match="x_test: signals of 2 channels of 5 values; x_train has 3"
    ):
        signal_numpy(config("signal_numpy", tmp_path))
