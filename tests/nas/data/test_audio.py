import numpy as np
import pytest
from scipy.io import wavfile

from nas.data.audio import LogMel, audio_folder, read_sound
from nas.data.splits import load_splits
from nas.job.sections.data import DataConfig
from search_spaces.errors import InputError

RATE = 16000


def tone(hz, seconds=1.0, rate=RATE):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def write(path, sound, rate=RATE, kind=np.int16):
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = {np.int16: 32767, np.int32: 2**31 - 1, np.uint8: 127, np.float32: 1}[kind]
    values = sound * scale + (128 if kind is np.uint8 else 0)
    wavfile.write(path, rate, values.astype(kind))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for word, hz in (("high", 2000), ("low", 300), ("other", 900), ("_noise_", 50)):
        for speaker in range(8):
            for take in range(2):
                sound = 0.5 * tone(hz * rng.uniform(0.9, 1.1), rng.uniform(0.4, 1.2))
                write(tmp_path / word / f"s{speaker}_nohash_{take}.wav", sound)
    return tmp_path


def config(folder, **rest):
    return DataConfig(name="audio_folder", path=str(folder), **rest)


def test_a_tone_is_loudest_in_its_own_band():
    front = LogMel()
    assert (front.frames, front.bins, front.fft) == (49, 40, 512)
    for hz in (300, 1000, 3000):
        picture = front(tone(hz))
        assert picture.shape == (49, 40) and picture.dtype == np.float32
        band = int(picture[10:40].mean(0).argmax())
        centres = (front.filters * np.arange(257)).sum(1) / front.filters.sum(1) * RATE / 512
        assert centres[band] == pytest.approx(hz, rel=0.12)


def test_energies_are_those_of_a_transform_written_out():
    front = LogMel(bins=12, window_ms=20, hop_ms=10)
    sound = np.random.default_rng(0).normal(size=RATE)
    n, k = np.arange(front.window), np.arange(front.fft // 2 + 1)
    windowed = sound[3 * front.hop : 3 * front.hop + front.window] * np.hanning(front.window)
    fourier = (windowed * np.exp(-2j * np.pi * np.outer(k, n) / front.fft)).sum(1)
    expected = np.log(front.filters @ np.abs(fourier) ** 2 + 1e-6)
    np.testing.assert_allclose(front(sound)[3], expected, rtol=1e-4)


def test_short_and_long_sounds_are_centred():
    front = LogMel()
    short, long = front(tone(500, 0.5)), front(tone(500, 3.0))
    loud = short.max(1) > short.max() - 3
    assert loud[20:28].all() and not loud[:8].any() and not loud[-8:].any()
    np.testing.assert_allclose(long[5].argmax(), long[40].argmax())


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint8, np.float32])
def test_wave_files_of_every_width_give_the_same_sound(tmp_path, kind):
    sound = 0.5 * tone(440)
    write(tmp_path / "a.wav", np.stack([sound, sound], axis=1), kind=kind)
    rate, values = read_sound(tmp_path / "a.wav")
    assert rate == RATE and values.shape == (RATE,)
    np.testing.assert_allclose(values, sound, atol=0.02 if kind is np.uint8 else 1e-3)


def test_flac_files_are_read(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.flac", 0.5 * tone(440), RATE)
    rate, values = read_sound(tmp_path / "a.flac")
    assert rate == RATE
    np.testing.assert_allclose(values, 0.5 * tone(440), atol=1e-3)


def test_a_folder_a_word_with_voices_of_their_own_in_each_set(folder):
    options = {"words": ["high", "low"], "unknown": "unknown"}
    splits = load_splits(config(folder, validation=0.25, options=options), 0)
    assert splits.classes == ("high", "low", "unknown")
    assert splits.input_shape == (1, 49, 40)
    speaker = np.tile(np.repeat(np.arange(8), 2), 3)
    sets = [set(speaker[part.indices.numpy()].tolist()) for part in
            (splits.train, splits.validation, splits._test)]  # fmt: skip
    assert all(sets) and sum(map(len, sets)) == 8 == len(set.union(*sets))
    text = splits.input_text
    assert "(1, 49, 40)" in text and "every 320" in text and "20 ms" in text


def test_lists_of_the_folder_decide_its_sets(folder):
    (folder / "testing_list.txt").write_text("high/s0_nohash_0.wav\nlow/s0_nohash_1.wav\n")
    (folder / "validation_list.txt").write_text("low/s1_nohash_0.wav\n")
    raw = audio_folder(config(folder))
    assert raw.classes == ("high", "low", "other")
    sizes = [len(part.labels) for part in (raw.train, raw.validation, raw.test)]
    assert sizes == [45, 1, 2] and len(raw.groups) == 45


def test_every_file_that_cannot_be_used_is_named(folder):
    write(folder / "high" / "a.wav", tone(100, rate=8000), rate=8000)
    write(folder / "high" / "b.wav", np.zeros(0))
    (folder / "low" / "c.wav").write_bytes(b"RIFF but no more")
    write(folder / "low" / "d.wav", np.array([0.1, np.nan], np.float32), kind=np.float32)
    with pytest.raises(InputError) as error:
        audio_folder(config(folder))
    told = str(error.value)
    for name, words in (
        ("high/a.wav", "has 8000 samples a second, not 16000"),
        ("high/b.wav", "is empty"),
        ("low/c.wav", "cannot be read as WAV"),
        ("low/d.wav", "not finite"),
    ):
        assert f"{folder / name}: {words}" in told or (name in told and words in told)
    assert "data.options.rate" in told


@pytest.mark.parametrize(
    "options, message",
    [
        ({"words": ["high", "middle"]}, "middle is no folder"),
        ({"bins": 0}, "options.bins: 0"),
        ({"window_ms": 1500.0}, "longer than the sound"),
    ],
)
def test_wrong_options_are_named(folder, options, message):
    with pytest.raises(InputError, match=message):
        audio_folder(config(folder), **options)


@pytest.mark.parametrize("seconds", [0.5, 0.7])
def test_who_follows_the_card_s_words_gets_the_same_spectrogram(seconds):
    front = LogMel(rate=8000, seconds=0.6, bins=16)
    sound = np.random.default_rng(2).normal(size=round(seconds * 8000)) / 8
    words = front.text()
    for said in ("middle 0.6 s at 8000 Hz", "between zeros", "0.5 - 0.5 cos(2 pi n / 239)",
                 "of 240 samples every 160", "FFT of 256 points", "16 mel bands",
                 "triangles on the mel scale", "evenly from 20 to 4000 Hz",
                 "ln(energy + 1e-06)"):  # fmt: skip
        assert said in words, said
    cut = round(abs(seconds - 0.6) * 8000) // 2
    whole = np.pad(sound, cut) if seconds < 0.6 else sound[cut : cut + 4800]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(240) / 239)
    corners = np.linspace(2595 * np.log10(1 + 20 / 700), 2595 * np.log10(1 + 4000 / 700), 18)
    scale = 2595 * np.log10(1 + np.arange(129) * 8000 / 256 / 700)
    bands = [np.interp(scale, corners[i : i + 3], [0, 1, 0], left=0, right=0) for i in range(16)]
    frames = [whole[i : i + 240] * window for i in range(0, 4800 - 240 + 1, 160)]
    energy = np.abs(np.fft.rfft(frames, 256)) ** 2 @ np.array(bands).T
    np.testing.assert_allclose(front(sound), np.log(energy + 1e-6), rtol=1e-4, atol=1e-4)


def test_parts_may_be_folders_of_folders(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("Testing", 1)):
        for word, hz in (("high", 2000), ("low", 300)):
            for i in range(count):
                write(tmp_path / part / word / f"{i}.wav", 0.5 * tone(hz))
    raw = audio_folder(config(tmp_path))
    assert raw.classes == ("high", "low")
    assert [len(part.labels) for part in (raw.train, raw.validation, raw.test)] == [8, 4, 2]
    assert raw.test.labels.tolist() == [0, 1] and len(raw.groups) == 8
    write(tmp_path / "val" / "middle" / "0.wav", tone(900))
    with pytest.raises(InputError, match="'middle' is not among the training classes"):
        audio_folder(config(tmp_path))


@pytest.fixture
def listed(tmp_path):
    """Ten sounds in one folder and their classes in a table, as ESC-50 has them."""
    rows = ["filename,fold,target,category,esc10"]
    for i in range(10):
        write(tmp_path / "audio" / f"1-{i}.wav", 0.5 * tone((300, 2000)[i % 2]))
        rows.append(f"1-{i}.wav,{i // 2 + 1},{i % 2},{('low', 'high')[i % 2]},True")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join(rows))
    return tmp_path


def test_a_table_names_sounds_and_its_folds_are_never_divided(listed):
    options = {"labels": "meta/esc50.csv"}
    splits = load_splits(config(listed, options=options, validation=0.25), 0)
    assert splits.classes == ("high", "low")
    fold = np.arange(10) // 2
    sets = [set(fold[part.indices.numpy()].tolist()) for part in
            (splits.train, splits.validation, splits._test)]  # fmt: skip
    assert all(sets) and sum(map(len, sets)) == 5 == len(set.union(*sets))
    numbers = audio_folder(config(listed), labels="meta/esc50.csv", target="target")
    assert numbers.classes == ("0", "1") and numbers.train.labels.tolist() == [0, 1] * 5


def test_without_its_name_a_table_is_pointed_to(listed):
    with pytest.raises(InputError, match=r"say data.options.labels: meta/esc50\.csv"):
        audio_folder(config(listed))


def test_mistakes_of_a_table_are_told_with_their_lines(listed):
    path = listed / "meta" / "esc50.csv"
    path.write_text(path.read_text() + "\ngone.wav,1,0,low,True\nlost.wav,1,0,low,True")
    with pytest.raises(InputError) as error:
        audio_folder(config(listed), labels="meta/esc50.csv")
    assert "esc50.csv:12: 'gone.wav' is not under" in str(error.value)
    assert "esc50.csv:13: 'lost.wav' is not under" in str(error.value)
    with pytest.raises(InputError, match="has no class 'middle'"):
        path.write_text("\n".join(path.read_text().splitlines()[:11]))
        audio_folder(config(listed), labels="meta/esc50.csv", words=["low", "middle"])
