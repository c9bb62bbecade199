"""The generated reference pages say what the code says."""

from __future__ import annotations

import pytest

from experiments.docs_reference import DOCS, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_up_to_date(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    assert text == PAGES[name](), "run: python -m experiments.docs_reference"
