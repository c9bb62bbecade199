"""Files named by their hash: whole or not at all."""

import errno
import hashlib
import os

import pytest

from devices.untrusted.blobs import BlobStore
from search_spaces.errors import EnvironmentProblem, InputError


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs", max_bytes=1000, max_total_bytes=2500)


def put(store, content):
    sha256 = hashlib.sha256(content).hexdigest()
    with store.receive(sha256) as incoming:
        incoming.write(content[: len(content) // 2])
        incoming.write(content[len(content) // 2 :])
        assert incoming.finish().read_bytes() == content
    return sha256


def names(store):
    return sorted(path.name for path in store.folder.iterdir())


def test_what_was_received_is_there(store):
    sha256 = put(store, b"model")
    assert sha256 in store and names(store) == [sha256]
    assert put(store, b"model") == sha256 and names(store) == [sha256]


@pytest.mark.parametrize("name", ["", "../x", "a" * 63, "A" * 64, "a" * 64 + "\n", "a/" * 32])
def test_only_hashes_are_names(store, name):
    with pytest.raises(InputError, match="64 hexadecimal"):
        store.path(name)


def test_nothing_is_left_of_what_was_not_finished(store):
    with store.receive("0" * 64) as incoming:
        incoming.write(b"half")
    with store.receive("0" * 64) as incoming, pytest.raises(InputError, match="hash"):
        incoming.finish()
    with store.receive("0" * 64) as incoming, pytest.raises(InputError, match="larger"):
        incoming.write(b"x" * 1001)
    assert names(store) == []


def test_parts_of_a_killed_process_are_swept(store):
    (store.folder / ".part-killed").write_bytes(b"half")
    BlobStore(store.folder, max_bytes=1, max_total_bytes=1)
    assert names(store) == []


def test_a_check_decides_before_the_file_counts(tmp_path):
    def refuse(path):
        raise InputError("not this one")

    store = BlobStore(tmp_path, max_bytes=10, max_total_bytes=10, check=refuse)
    with pytest.raises(InputError, match="not this one"):
        put(store, b"model")
    assert names(store) == []


@pytest.mark.parametrize("moment", ["write", "flush"])
def test_a_full_disk_leaves_nothing(tmp_path, moment):
    class Full:
        def __init__(self, handle):
            self.file = os.fdopen(handle, "wb")

        def __getattr__(self, name):
            if name == moment:
                raise OSError(errno.ENOSPC, "No space left on device")
            return getattr(self.file, name)

    store = BlobStore(tmp_path, max_bytes=10, max_total_bytes=10, open_file=Full)
    with pytest.raises(EnvironmentProblem, match="no space"):
        put(store, b"model")
    assert names(store) == []


def test_pruning_removes_the_least_recently_used_that_nobody_needs(store):
    kept = [put(store, bytes([i]) * 900) for i in range(4)]
    for age, sha256 in enumerate(kept):
        os.utime(store.path(sha256), (1000 + age, 1000 + age))
    store.touch(kept[0])
    assert store.prune(lambda sha256: sha256 == kept[1]) == [kept[2], kept[3]]
    assert names(store) == sorted(kept[:2])
