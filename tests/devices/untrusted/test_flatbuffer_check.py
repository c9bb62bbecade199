"""LiteRT and ExecuTorch files: whole ones pass, damaged ones are refused and never crash."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.untrusted.flatbuffer_check import FlatbufferRefused, check_executorch, check_litert
from devices.untrusted.model_check import check_model
from search_spaces.errors import InputError

FILES = Path(__file__).parent / "files"
LITERT = (FILES / "small.tflite").read_bytes()
EXECUTORCH = (FILES / "small.pte").read_bytes()
CHECKS = {"litert": (check_litert, LITERT), "executorch": (check_executorch, EXECUTORCH)}
KINDS = st.sampled_from(sorted(CHECKS))


def run(kind, content, elements=1 << 20, steps=50_000):
    CHECKS[kind][0](content, elements=elements, steps=steps)


@pytest.mark.parametrize("kind", CHECKS)
def test_whole_files_pass(kind, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(CHECKS[kind][1])
    assert check_model(path) == kind


@given(KINDS, st.data())
def test_truncated_files_are_refused(kind, data):
    content = CHECKS[kind][1]
    # The last bytes may be padding.
    keep = data.draw(st.integers(0, len(content) - 64))
    with pytest.raises(InputError):
        run(kind, content[:keep])


@settings(max_examples=300)
@given(KINDS, st.data())
def test_bit_flips_are_refused_or_harmless_and_nothing_else(kind, data):
    content = bytearray(CHECKS[kind][1])
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, 8 * len(content) - 1))
        content[place // 8] ^= 1 << place % 8
    try:
        run(kind, bytes(content))
    except FlatbufferRefused as error:
        assert "\n" not in str(error)


@settings(max_examples=200)
@given(KINDS, st.binary(max_size=400))
def test_anything_else_is_refused(kind, content):
    with pytest.raises(FlatbufferRefused):
        run(kind, content)


@pytest.mark.parametrize("kind", CHECKS)
def test_tensors_beyond_the_limit_are_refused(kind):
    with pytest.raises(FlatbufferRefused, match=r"elements allowed|memory than allowed"):
        run(kind, CHECKS[kind][1], elements=2)


@pytest.mark.parametrize("kind", CHECKS)
def test_the_time_of_the_check_is_bounded(kind):
    with pytest.raises(FlatbufferRefused, match="more tables and entries"):
        run(kind, CHECKS[kind][1], steps=10)


def test_a_vector_that_announces_more_than_there_is():
    """The smallest model that says it holds 2^31 buffers."""
    vtable = struct.pack("<8H", 14, 8, 0, 0, 0, 0, 4, 0)
    table = struct.pack("<iI", 16, 4)
    content = struct.pack("<I", 24) + b"TFL3" + vtable + table + struct.pack("<I", 1 << 31)
    with pytest.raises(FlatbufferRefused, match="longer than the file"):
        run("litert", content)


def test_a_segment_outside_the_file_is_refused():
    content = bytearray(EXECUTORCH)
    struct.pack_into("<Q", content, 24, len(content) + 8)
    with pytest.raises(FlatbufferRefused, match="truncated"):
        run("executorch", bytes(content))
