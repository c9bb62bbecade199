import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data.batches import expected_draws
from nas.data.sources import DATA_SOURCES, ImageArrays, RawData
from nas.data.splits import (
    Augmentation,
    Batches,
    Crops,
    FileImages,
    MemoryImages,
    Normalisation,
    Subset,
    _stratified_order,
    load_splits,
)
from nas.job.schema import Job
from nas.job.sections.data import AugmentConfig, DataConfig
from nas.stages.opened_job import network_space
from nas.tasks import TASKS
from search_spaces.errors import InputError
from tests.nas.data.numbered import numbered

DIGITS = DataConfig(name="digits")


@pytest.fixture(scope="module")
def splits():
    return load_splits(DIGITS, seed=3)


PLAIN = Normalisation((0.0,), (1.0 / 255.0,))  # gives the pixel values back


def test_sets_of_one_source_are_joined(splits):
    both = splits.train.joined(splits.validation)
    assert len(both) == len(splits.train) + len(splits.validation)
    assert set(both.indices.tolist()) >= set(splits.validation.indices.tolist())
    with pytest.raises(InputError, match=r"finetune\.refit"):
        splits.train.joined(numbered(3))


def test_the_parts_are_disjoint_and_complete(splits):
    parts = [splits.train, splits.validation, load_splits(DIGITS, 3).test("a test")]
    together = torch.cat([part.indices for part in parts])
    assert sorted(together.tolist()) == list(range(1797))
    assert set(splits.calibration.indices.tolist()) <= set(splits.train.indices.tolist())
    assert len(splits.calibration) == 1000


def test_every_part_holds_the_classes_in_proportion(splits):
    for part in (splits.train, splits.validation, splits.calibration):
        counts = torch.bincount(part.labels[part.indices], minlength=10)
        assert counts.min() >= 0.7 * counts.float().mean()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 2**32))
def test_any_stretch_of_the_order_is_stratified(labels, seed):
    labels = np.array(labels)
    order = _stratified_order(labels, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    start, stop = len(labels) // 4, len(labels) // 2
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        # Ranks advance at the class's own pace; the rest is the spread of the other classes.
        positions = np.flatnonzero(labels[order] == label)
        inside = ((positions >= start) & (positions < stop)).sum()
        assert abs(inside - count * (stop - start) / len(labels)) <= 2 + 5 * count / len(labels)


def test_the_division_follows_from_the_seed_alone():
    first, again, other = (load_splits(DIGITS, seed).record()["splits"] for seed in (1, 1, 2))
    assert first == again
    for part in ("train", "validation", "test", "calibration"):
        assert first[part]["indices_sha256"] != other[part]["indices_sha256"]
        assert first[part]["images"] == other[part]["images"]


def test_sizes_as_counts_and_shares():
    splits = load_splits(DataConfig(name="digits", validation=100, test=0.5, train=50), seed=0)
    record = splits.record()["splits"]
    assert {name: part["images"] for name, part in record.items()} == {
        "train": 50, "calibration": 50, "validation": 100, "test": 898,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"data.validation: 2000 asks for 2000 of 1438"):
        load_splits(DataConfig(name="digits", validation=2000), seed=0)


def test_the_test_set_is_handed_out_once_and_told():
    splits = load_splits(DIGITS, seed=0)
    reasons = []
    splits.on_test_read = reasons.append
    assert len(splits.test("the verified front")) == 359
    assert reasons == ["the verified front"]
    with pytest.raises(RuntimeError, match="read already, for 'the verified front'"):
        splits.test("another look")


def test_normalisation_is_of_the_training_images(splits):
    pixels, _ = splits.train.at(torch.arange(len(splits.train)))
    normalised = splits.normalisation(pixels)
    assert normalised.dtype == torch.float32
    assert abs(float(normalised.double().mean())) < 1e-6
    assert float(normalised.double().std(correction=0)) == pytest.approx(1.0, abs=1e-6)


def test_normalisation_by_channel():
    pixels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(Normalisation(mean, std)(pixels), expected)


def test_an_epoch_holds_every_image_once_in_another_order():
    batches = Batches(numbered(60), batch_size=20, seed=0, normalisation=PLAIN)
    orders = []
    for epoch in range(2):
        labels = torch.cat([y for _, y in batches.epoch(epoch)])
        assert sorted(labels.tolist()) == list(range(60))
        orders.append(labels.tolist())
    assert orders[0] != orders[1]


@given(start=st.integers(0, 5), epoch=st.integers(0, 3), seed=st.integers(0, 10))
def test_an_epoch_resumed_in_the_middle_is_the_same(start, epoch, seed):
    batches = Batches(
        numbered(47, size=6),
        batch_size=8,
        seed=seed,
        normalisation=PLAIN,
        augmentation=Augmentation(crop_padding=2, flip=True, erase=0.5, scale=0.4),
    )
    whole = list(batches.epoch(epoch))
    assert len(whole) == len(batches) == 5
    rest = list(batches.epoch(epoch, start=start))
    assert len(rest) == len(whole) - min(start, 5)
    for (x, y), (x2, y2) in zip(whole[start:], rest, strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)


def test_fewer_images_than_a_batch_make_one_batch():
    batches = Batches(numbered(5), batch_size=20, seed=0, normalisation=PLAIN)
    assert [len(y) for _, y in batches.epoch(0)] == [5]


@given(pad=st.integers(0, 3), flip=st.booleans(), seed=st.integers(0, 1000))
def test_augmentation_is_a_crop_of_the_padded_or_mirrored_image(pad, flip, seed):
    pixels = torch.randint(1, 256, (6, 2, 5, 5), dtype=torch.uint8)
    out = Augmentation(crop_padding=pad, flip=flip)(pixels, np.random.default_rng(seed))
    assert out.shape == pixels.shape and out.dtype == torch.uint8
    padded = torch.nn.functional.pad(pixels.float(), (pad, pad, pad, pad), mode="replicate").byte()
    for image, source in zip(out, padded, strict=True):
        crops = [
            source[:, y : y + 5, x : x + 5] for y in range(2 * pad + 1) for x in range(2 * pad + 1)
        ]
        if flip:
            crops += [crop.flip(2) for crop in crops]
        assert any(torch.equal(image, crop) for crop in crops)


def test_flips_and_crops_do_happen_to_each_image_apart():
    pixels = torch.arange(25, dtype=torch.uint8).view(1, 1, 5, 5).repeat(200, 1, 1, 1)
    rng = np.random.default_rng(0)
    flipped = Augmentation(flip=True)(pixels, rng)
    mirrored = [bool(torch.equal(a, b.flip(2))) for a, b in zip(flipped, pixels, strict=True)]
    assert 60 < sum(mirrored) < 140
    assert len(torch.unique(Augmentation(crop_padding=1)(pixels, rng), dim=0)) == 9


def test_erasing_blanks_one_square_of_the_chosen_images():
    pixels = torch.full((300, 3, 8, 8), 9, dtype=torch.uint8)
    out = Augmentation(erase=0.5)(pixels, np.random.default_rng(0))
    blanked = (out == 0).flatten(1).sum(1)
    assert set(blanked.tolist()) == {0, 3 * 2 * 2}
    assert 100 < int((blanked > 0).sum()) < 200


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 0.99))
def test_crops_lie_inside_the_image_and_keep_their_area(seed, scale):
    crops = Augmentation(scale=scale).crops(20, np.random.default_rng(seed))
    for width, height in ((32, 32), (60, 20)):
        left, top, w, h = crops.boxes(width, height).T
        assert (left >= 0).all() and (left + w <= width + 1e-9).all()
        assert (top >= 0).all() and (top + h <= height + 1e-9).all()
        whole = (w < width) & (h < height)
        assert (w * h >= scale * width * height - 1e-6)[whole].all()
        np.testing.assert_allclose((w / h)[whole], crops.ratio[whole])


def test_cropping_in_memory_scales_the_part_up():
    ramp = torch.arange(16, dtype=torch.uint8) * 10
    pixels = ramp.expand(1, 1, 16, 16).contiguous()
    half = Crops(np.array([0.25]), np.array([1.0]), np.array([1.0]), np.array([0.0]))
    (out,) = MemoryImages(pixels).at(torch.tensor([0]), half)
    # The right half, twice as large: steps of 5 from 80 on, sampled between the columns.
    expected = torch.clamp(80 + 5 * (torch.arange(16) + 0.5) - 5, max=150)
    assert (out[0, 3].float() - expected).abs().max() <= 0.5
    whole = Crops(*(np.array([v]) for v in (1.0, 1.0, 0.3, 0.3)))
    assert torch.equal(MemoryImages(pixels).at(torch.tensor([0]), whole), pixels)


def test_evaluation_keeps_the_order_and_the_pixels(splits):
    batches = list(splits.evaluation_batches(splits.validation, batch_size=100))
    assert [len(y) for _, y in batches] == [100, 44]
    pixels, labels = splits.validation.at(torch.arange(144))
    assert torch.equal(torch.cat([x for x, _ in batches]), splits.normalisation(pixels))
    assert torch.equal(torch.cat([y for _, y in batches]), labels)


def test_augmentation_follows_the_data_unless_the_job_says_otherwise(splits):
    assert splits.augmentation == Augmentation(crop_padding=1, flip=False)
    config = DataConfig(
        name="digits", augment=AugmentConfig(crop_padding=0, flip=True, erase=0.1, scale=0.5)
    )
    assert load_splits(config, 0).augmentation == Augmentation(0, True, 0.1, 0.5)


def test_images_can_be_resized_and_coloured():
    splits = load_splits(DataConfig(name="digits", image_size=12, channels=3), seed=0)
    pixels, _ = splits.train.at(torch.arange(7))
    assert pixels.shape == (7, 3, 12, 12)
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    assert len(splits.normalisation.mean) == 3


@pytest.fixture
def pictures(tmp_path):
    for c, name in enumerate(("ant", "bee", "cat")):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("RGB", (30, 20), (80 * c, 20 * i, 255 - i)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_image_folders_are_divided_and_decoded(pictures):
    config = DataConfig(
        name="image_folder", path=str(pictures), image_size=16, calibration=6, validation=0.25
    )
    splits = load_splits(config, seed=0)
    counts = {k: v["images"] for k, v in splits.record()["splits"].items()}
    assert counts == {"train": 18, "calibration": 6, "validation": 6, "test": 6}
    for epoch in range(2):
        batches = list(splits.training_batches(4, seed=0).epoch(epoch))
        assert [tuple(x.shape) for x, _ in batches] == [(4, 3, 16, 16)] * 4
    pixels, labels = splits.validation.at(torch.arange(6))
    assert torch.equal(pixels[:, 0, 8, 8], (80 * labels).to(torch.uint8))


def test_a_damaged_picture_is_named(pictures):
    splits = load_splits(DataConfig(name="image_folder", path=str(pictures), image_size=16), 0)
    # Damaged after the check at the start.
    for path in pictures.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"\.png: cannot be read as an image"):
        list(splits.evaluation_batches(splits.validation))


@pytest.mark.parametrize("budget", [2**31, 1])
def test_changed_pixels_change_what_is_recorded_of_files(pictures, monkeypatch, budget):
    monkeypatch.setattr("nas.data.images.FINGERPRINT_BYTES", budget)
    paths = tuple(sorted(pictures.rglob("*.png")))
    images = FileImages(paths, size=16, channels=3)
    before = images.fingerprint()
    os.utime(paths[0])
    assert images.fingerprint() == before
    old = paths[0].read_bytes()
    # The same size to the byte, other pixels.
    changed = bytearray(old)
    changed[len(old) // 2] ^= 1
    paths[0].write_bytes(changed)
    assert images.fingerprint() != before
    paths[0].write_bytes(old)
    assert images.fingerprint() == before


def test_of_a_large_file_both_ends_are_read(tmp_path):
    path = tmp_path / "large.ppm"
    images = FileImages((path,), size=16, channels=3)
    path.write_bytes(bytes(9 * 2**20))
    blank = images.fingerprint()
    found = []
    for place in (0, 2**22 - 1, -(2**22), -1):
        data = bytearray(9 * 2**20)
        data[place] = 1
        path.write_bytes(data)
        found.append(images.fingerprint())
    assert len({blank, *found}) == 5


def test_sixteen_bit_grey_files_are_scaled_and_not_clipped(tmp_path):
    levels = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    paths = []
    for name, picture in (
        ("deep.png", Image.fromarray(levels)),
        ("flat.png", Image.fromarray((levels // 257).astype(np.uint8))),
    ):
        paths.append(tmp_path / name)
        picture.save(paths[-1])
    deep, flat = FileImages(tuple(paths), size=7, channels=1).at(torch.arange(2)).int()
    assert deep.max() < 255 or flat.max() == 255
    assert (deep - flat).abs().max() <= 1
    assert deep.unique().numel() > 30  # not all white


def test_a_class_that_a_set_has_no_image_of_is_told(tmp_path):
    random = np.random.default_rng(0)
    for label, count in (("a", 6), ("b", 6), ("c", 6)):
        for part, n in (("train", count), ("val", count if label != "c" else 0)):
            for number in range(n):
                folder = tmp_path / part / label
                folder.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    config = DataConfig(name="image_folder", path=str(tmp_path), image_size=8, test=0.34)
    (warning,) = load_splits(config, 0).warnings()
    assert "validation set has no image of c" in warning
    assert load_splits(DIGITS, 0).warnings() == []


@pytest.mark.parametrize(("often", "told"), [(60, True), (22, False)])
def test_uneven_classes_are_told_with_what_naming_the_common_one_gives(tmp_path, often, told):
    rng = np.random.default_rng(0)
    for label, count in (("rare", 10), ("common", often), ("other", 10)):
        (tmp_path / label).mkdir()
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
                tmp_path / label / f"{number}.png"
            )
    config = DataConfig(name="image_folder", path=str(tmp_path), image_size=8)
    splits = load_splits(config, 0)
    found = splits.warnings(told_by_class=True)
    assert len(found) == told and splits.warnings() == []
    if told:
        assert "examples of rare to" in found[0] or "examples of other to" in found[0]
        assert "who always says common has an accuracy of 0.75 on the test set" in found[0]
        assert "worst_class_accuracy" in found[0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), balance=st.floats(0.1, 1.0),
       counts=st.lists(st.integers(1, 300), min_size=2, max_size=5))  # fmt: skip
def test_rare_classes_are_drawn_as_often_as_is_asked(seed, balance, counts):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    pixels = labels.to(torch.uint8).view(-1, 1, 1, 1)
    n = len(labels)
    subset = Subset(MemoryImages(pixels), labels, torch.arange(n))
    batches = Batches(
        subset,
        batch_size=1, seed=seed, normalisation=Normalisation((0.0,), (1.0,), scale=1.0),
        draws=expected_draws(subset, "classes", len(counts), balance),
    )  # fmt: skip
    assert len(batches) == n
    drawn = torch.cat([told for _, told in batches.epoch(0)])
    often = torch.tensor(counts).double() ** (1 - balance)
    expected = n * often / often.sum()
    found = torch.bincount(drawn, minlength=len(counts)).double()
    assert int(found.sum()) == n
    # Each example comes as often as is expected, rounded up or down.
    assert ((found - expected).abs() <= torch.tensor(counts)).all()
    if min(counts) == max(counts):
        assert found.tolist() == counts
    # The same epoch is the same again.
    assert torch.equal(drawn, torch.cat([told for _, told in batches.epoch(0)]))


def examples(labels):
    return Subset(
        MemoryImages(torch.zeros(len(labels), 1, 1, 1)), labels, torch.arange(len(labels))
    )


def test_all_classes_come_alike_where_balance_is_one():
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([900, 90, 10]))
    weights = expected_draws(examples(labels), "classes", 3, 1.0)
    sums = [float(weights[labels == k].sum()) for k in range(3)]
    assert sums == pytest.approx([1000 / 3] * 3)
    assert expected_draws(examples(labels), "classes", 3, 0.0) is None


def test_an_image_counts_as_its_rarest_class_and_one_of_none_as_the_commonest():
    labels = torch.tensor([[1.0, 0.0]] * 8 + [[1.0, 1.0]] + [[0.0, 0.0]])
    weights = expected_draws(examples(labels), "labels", 2, 0.5)
    assert weights[8] / weights[0] == pytest.approx((0.9 / 0.1) ** 0.5)
    assert weights[9] == weights[0] and weights.mean() == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"data\.balance: 0\.5 draws rare classes.*values"):
        expected_draws(examples(labels), "values", 2, 0.5)


@pytest.mark.parametrize(("balance", "rare"), [(0.0, 0.01), (1.0, 0.1)])
def test_a_job_trains_on_rare_classes_more_often(balance, rare):
    splits = load_splits(DIGITS.model_copy(update={"balance": balance}), 0)
    # Of each of nine classes 90 examples, and of the last nine.
    told = splits.train.labels[splits.train.indices]
    kept = [torch.nonzero(told == k)[: 9 if k == 9 else 90, 0] for k in range(10)]
    few = replace(splits.train, indices=splits.train.indices[torch.cat(kept)])
    batches = splits.training_batches(9, seed=0, subset=few)
    drawn = torch.cat([told for epoch in range(20) for _, told in batches.epoch(epoch)])
    share = torch.bincount(drawn, minlength=10).double() / len(drawn)
    assert share[9] == pytest.approx(rare, abs=0.003)
    assert share[:9].sub((1 - rare) / 9).abs().max() < 0.01


@pytest.mark.parametrize(("factor", "told"), [(1000, True), (3, False)])
def test_values_that_hardly_count_beside_others_are_named(tmp_path, factor, told):
    rng = np.random.default_rng(0)
    rows = ["file,area,place"]
    for number in range(30):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{factor * rng.normal():.3f},{rng.normal():.3f}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    config = DataConfig(name="image_csv", path=str(tmp_path), image_size=8)
    found = load_splits(config, 0, kind="values").warnings()
    assert len(found) == told
    assert not told or ("those of area nearly alone" in found[0] and "and place by" in found[0])


def plugin(images, classes=2, **more):
    labels = np.arange(len(images)) % classes
    raw = RawData(
        train=ImageArrays(images, labels),
        test=None,
        classes=tuple(map(str, range(classes))),
        channels=images.shape[1],
        image_size=images.shape[2],
        origin="made up",
        **more,
    )
    return lambda config: raw


@pytest.fixture
def source(monkeypatch):
    """Registers a source of arrays for one test."""
    return lambda images, **more: monkeypatch.setitem(
        DATA_SOURCES._parts, "made_up", plugin(images, **more)
    )


MADE_UP = DataConfig(name="made_up")


def test_floats_of_a_plug_in_stay_the_values_they_are(source):
    scores = np.random.default_rng(0).normal(-1, 2, (60, 2, 8, 8))
    source(scores, crop_padding=1, flip=True, scale=0.5)
    splits = load_splits(MADE_UP, 0)
    pixels, _ = splits.train.at(torch.arange(len(splits.train)))
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(
        pixels.numpy(), scores[splits.train.indices.numpy()], rtol=1e-6, atol=1e-6
    )
    normal = splits.normalisation(pixels)
    assert normal.mean().abs() < 1e-5 and abs(normal.std() - 1) < 0.01
    assert splits.record()["pixel_scale"] == 1.0
    for images, _ in splits.training_batches(8, seed=0).epoch(0):
        assert images.unique().numel() > 100  # not bytes


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16])
def test_whole_numbers_up_to_255_are_bytes(source, dtype):
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype(dtype)
    source(images)
    splits = load_splits(MADE_UP, 0)
    assert splits.train.images.pixels.dtype == torch.uint8
    np.testing.assert_array_equal(splits.train.images.pixels.numpy(), images)
    assert "pixel_scale" not in splits.record()


def test_whole_numbers_beyond_a_byte_are_not_cut(source):
    images = np.random.default_rng(0).integers(0, 5000, (40, 1, 8, 8)).astype(np.uint16)
    source(images)
    np.testing.assert_array_equal(load_splits(MADE_UP, 0).train.images.pixels.numpy(), images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((40, 1, 8, 8), np.nan), "image 0 holds values that are not finite"),
        (np.zeros((40, 8, 8)), "a source gives"),
        (np.zeros((40, 1, 8, 8), complex), "images of type complex128"),
    ],
)
def test_arrays_that_are_no_images_are_refused(source, images, message):
    source(np.zeros((40, 1, 8, 8)))
    DATA_SOURCES._parts["made_up"](None).__dict__["train"] = ImageArrays(images, np.arange(40) % 2)
    with pytest.raises(InputError, match=message):
        load_splits(MADE_UP, 0)


def test_images_that_are_not_square_are_stretched_only_where_the_job_says_so(source):
    images = np.random.default_rng(0).normal(size=(40, 1, 12, 5))
    source(images, crop_padding=1, flip=True)
    splits = load_splits(MADE_UP, 0)
    assert splits.input_shape == (1, 12, 5)
    for batch, _ in splits.training_batches(8, seed=0).epoch(0):
        assert batch.shape == (8, 1, 12, 5)
    asked = load_splits(DataConfig(name="made_up", image_size=8), 0)
    assert asked.input_shape == (1, 8, 8)
    job = Job.model_validate({"name": "j", "data": {"name": "made_up"}})
    networks = network_space(job, TASKS.get("image_classification")(), splits)
    largest = networks.plan(networks.largest()).input_shape
    # The networks keep the ratio of the images, at the resolutions of the space.
    assert largest[1] / largest[2] == pytest.approx(12 / 5, abs=0.05)
    job = Job.model_validate({"name": "j", "data": {"name": "made_up"}, "space": {"name": "vit"}})
    with pytest.raises(InputError, match=r"12 x 5 pixels.*data.image_size"):
        network_space(job, TASKS.get("image_classification")(), splits)


@pytest.mark.parametrize("flip", [False, True])
def test_images_of_one_view_are_the_same_in_every_epoch(flip):
    batches = Batches(
        _lopsided(10),
        batch_size=3,
        seed=5,
        normalisation=PLAIN,
        augmentation=Augmentation(flip=flip),
    )
    assert batches.views == (20 if flip else 10)
    seen: dict[int, torch.Tensor] = {}
    for epoch in range(30):
        for index, (images, _) in enumerate(batches.epoch(epoch)):
            numbers = batches.views_of(epoch, index)
            assert len(numbers) == len(images)
            for number, image in zip(numbers.tolist(), images, strict=True):
                assert torch.equal(seen.setdefault(number, image), image)
    assert set(seen) == set(range(batches.views))
    assert len({tuple(image.flatten().tolist()) for image in seen.values()}) == batches.views


@pytest.mark.parametrize("change", [{"crop_padding": 1}, {"erase": 0.5}, {"scale": 0.5}])
def test_views_of_other_augmentations_are_countless(change):
    batches = Batches(
        _lopsided(10), batch_size=3, seed=5, normalisation=PLAIN,
        augmentation=Augmentation(flip=True, **change),
    )  # fmt: skip
    assert batches.views is None
    assert batches.views_of(0, 0) is None


def _lopsided(n: int) -> Subset:
    """Images that differ from each other and from their mirror images."""
    pixels = torch.arange(n * 16, dtype=torch.uint8).view(n, 1, 4, 4)
    return Subset(MemoryImages(pixels), torch.arange(n), torch.arange(n))


@pytest.mark.parametrize(
    "change", [{"crop_padding": 1}, {"erase": 0.5}, {"scale": 0.5}, {"noise": 0.1, "gain": 0.2}]
)
def test_views_are_countable_where_epochs_repeat(change):
    batches = Batches(
        _lopsided(10), batch_size=3, seed=5, normalisation=PLAIN,
        augmentation=Augmentation(flip=True, **change), rounds=3,
    )  # fmt: skip
    assert batches.views == 30
    seen: dict[int, torch.Tensor] = {}
    for epoch in range(6):
        for index, (images, _) in enumerate(batches.epoch(epoch)):
            numbers = batches.views_of(epoch, index)
            for number, image in zip(numbers.tolist(), images, strict=True):
                assert torch.equal(seen.setdefault(number, image), image)
    # One of ten images is left out of each of the three rounds.
    assert len(seen) == 27
    # What an epoch is does not depend on how many there are before it begins anew.
    plain = Batches(
        _lopsided(10), batch_size=3, seed=5, normalisation=PLAIN,
        augmentation=Augmentation(flip=True, **change),
    )  # fmt: skip
    for one, other in zip(plain.epoch(2), batches.epoch(5), strict=True):
        assert torch.equal(one[0], other[0])
