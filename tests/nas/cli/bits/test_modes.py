"""Every option of ``nas bits`` is taken by some kind of call."""

from __future__ import annotations

import inspect

from nas.cli.bits import modes
from nas.cli.bits.command import bits


def test_no_option_is_refused_whatever_it_comes_with():
    taken = modes._LANGUAGE | modes._NETWORK | frozenset().union(*modes._FURTHER.values())
    assert set(inspect.signature(bits).parameters) - {"context"} == taken
