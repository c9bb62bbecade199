"""Checkpoints hold what was put in, and damage is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from search_spaces.errors import InputError
from supernet.training.checkpoint import load_checkpoint, save_checkpoint

TENSORS = {
    "a": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    "flags": torch.tensor([True, False]),
    "step": torch.tensor(7.0),
    "view": torch.arange(12).view(3, 4)[:, :2],
    "empty": torch.zeros(0, 3),
}
STATE = {"step": 7, "history": [{"loss": 0.125}], "name": "ünïcode"}


def names(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_round_trip_keeps_tensors_and_state(tmp_path):
    path = tmp_path / "sub" / "c.safetensors"
    save_checkpoint(path, TENSORS, STATE)
    tensors, state = load_checkpoint(path)
    assert state == STATE and sorted(tensors) == sorted(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype
    assert names(path.parent) == ["c.json", "c.safetensors"]
    assert json.loads((path.parent / "c.json").read_text()) == STATE


def test_the_description_for_people_is_not_read_back(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, STATE)
    (tmp_path / "c.json").write_text("{torn")
    assert load_checkpoint(path)[1] == STATE


def test_a_file_of_somebody_else_has_no_state(tmp_path):
    path = tmp_path / "c.safetensors"
    save_file({"a": torch.ones(2)}, path)
    tensors, state = load_checkpoint(path)
    assert state == {} and torch.equal(tensors["a"], torch.ones(2))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"c\.safetensors does not exist"):
        load_checkpoint(tmp_path / "c.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 8, 40, 0.5, -1])
def test_a_cut_off_file_is_named(tmp_path, keep):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, STATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if keep == 0.5 else keep])
    with pytest.raises(InputError, match=r"c\.safetensors is no safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_save_is_told_with_the_call_that_makes_one_of_it(tmp_path, zipped):
    path = tmp_path / "net's.pt"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="no safetensors file") as caught:
        load_checkpoint(path)
    call = str(caught.value).split("in Python: ")[1]
    exec(f"import torch, safetensors.torch; {call}", {})
    tensors, _ = load_checkpoint(path.with_suffix(".safetensors"))
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_another_file_or_a_folder_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_text("just some text, long enough to hold a length")
    with pytest.raises(InputError, match="no safetensors file"):
        load_checkpoint(path)
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError, match="d cannot be read"):
        load_checkpoint(tmp_path / "d")


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    from search_spaces import atomic

    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, STATE)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"a": torch.zeros(1)}, {"step": 8})
    monkeypatch.undo()
    assert load_checkpoint(path)[1] == STATE
    assert names(tmp_path) == ["c.json", "c.safetensors"]


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, STATE)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    # Of weights, of the state's text and of names; spaces after the header hold nothing.
    end = 8 + len(whole[8 : 8 + header].rstrip())
    places = [*rng.integers(8 + header, len(whole), 20), *rng.integers(8, end, 60)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"damaged|no safetensors file|cannot be read"):
            load_checkpoint(path)
    path.write_bytes(whole)
    assert load_checkpoint(path)[1] == STATE


def test_types_without_a_numpy_twin_have_a_checksum_too(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"w": torch.randn(3).bfloat16(), "scalar": torch.tensor(1.5)}, {})
    assert load_checkpoint(path)[0]["w"].dtype == torch.bfloat16


def test_equal_contents_are_equal_files(tmp_path):
    tensors = {"b": torch.arange(5, dtype=torch.int8), "a.é": torch.randn(3, 2)}
    files = set()
    for number in range(12):
        path = tmp_path / f"{number}.safetensors"
        save_checkpoint(path, tensors, {"step": 3, "name": 'é "quoted"'})
        files.add(path.read_bytes())
    assert len(files) == 1
    read, state = load_checkpoint(path)
    assert state == {"step": 3, "name": 'é "quoted"'}
    assert read.keys() == tensors.keys() and all(read[k].equal(tensors[k]) for k in read)
