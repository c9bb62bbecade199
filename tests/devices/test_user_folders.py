"""Folders of the user where there is no home, or one that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.user_folders import cache_folder, home, make_cache
from search_spaces.errors import EnvironmentProblem


def test_the_variable_counts_then_the_users_cache_then_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("EDGE_NAS_CACHE", str(tmp_path / "own"))
    assert cache_folder("x") == tmp_path / "own" / "x"
    monkeypatch.delenv("EDGE_NAS_CACHE")
    assert cache_folder("x") == tmp_path / "xdg" / "edge-nas" / "x"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("x") == tmp_path / "home" / ".cache" / "edge-nas" / "x"


def test_without_a_home_the_message_says_what_to_give(monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    for variable in ("EDGE_NAS_CACHE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(EnvironmentProblem, match="EDGE_NAS_CACHE"):
        cache_folder("x")
    with pytest.raises(EnvironmentProblem, match="--data"):
        home("XDG_STATE_HOME", ".local/state", "--data")


@pytest.mark.parametrize("how", ["a file in the way", "not writable"])
def test_a_cache_that_cannot_be_used_is_named_with_the_way_out(tmp_path, monkeypatch, how):
    folder = tmp_path / "cache" / "lowbit"
    if how == "not writable":
        monkeypatch.setattr("os.access", lambda *_: False)
    else:
        (tmp_path / "cache").write_text("")
    with pytest.raises(EnvironmentProblem, match=r"lowbit.*EDGE_NAS_CACHE"):
        make_cache(folder)
