"""Pixels as inputs of a C project: a table of codes for every value of a byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from devices.lowbit.rounding import to_codes
from nas.models.c_project.program import Program
from nas.models.formats.preprocessing import PIXELS, kind_of, prepared
from search_spaces.errors import InputError


def pixel_tables(program: Program, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Return the input's code of every pixel, uint8 (channels or 1, 256).

    Args:
        program: whose input has a grid.
        preprocessing: see :func:`nas.models.formats.preprocessing.with_preprocessing`.

    Raises:
        InputError: the inputs are no pixels, or no mean and deviation are recorded.
    """
    if kind_of(preprocessing) != PIXELS:
        raise InputError(
            "a C project has the pre-processing of pixels alone: spectrograms and values need "
            "floats; export it without --embed-preprocessing, its README says what a code is"
        )
    channels, grid = program.input.shape[0], program.input.grid
    mean = preprocessing.get("mean") or []
    if len(mean) not in (1, channels) or len(preprocessing.get("std") or []) != len(mean):
        raise InputError(
            f"the recorded mean and std do not fit {channels} channels; the results of the run "
            "were changed, or record none"
        )
    assert grid is not None
    every = np.arange(256, dtype=np.uint8)[None, None, :, None].repeat(len(mean), 1)
    # As in the runtime: a division of float32, and a rounding of it.
    values = prepared(every, preprocessing)[0, :, :, 0]
    ratio = (values / np.float32(grid["scale"])).astype(np.float32)
    return to_codes(ratio, grid["zero_point"], 0, 2 ** grid["bits"] - 1).astype(np.uint8)


def pixel_sources(
    program: Program, tables: np.ndarray, *, reversed_channels: bool
) -> tuple[str, str]:
    """Return what ``model.c`` and ``model.h`` get: tables and a function that reads pixels.

    Args:
        program: of the network.
        tables: from :func:`pixel_tables`.
        reversed_channels: the network takes blue, green, red, and pixels are red, green, blue.
    """
    channels, height, width = program.input.shape
    rows = ",\n".join(
        "  {\n"
        + ",\n".join(
            "    " + ", ".join(map(str, row[i : i + 16].tolist())) for i in range(0, 256, 16)
        )
        + "\n  }"
        for row in tables
    )
    place = f"{channels - 1} - c" if reversed_channels else "c"
    row = place if len(tables) > 1 else "0"
    code = f"""
static const uint8_t pixel_codes[{len(tables)}][256] = {{
{rows}
}};

void edge_nas_set_pixels(const uint8_t *pixels) {{
  uint8_t *codes = edge_nas_input();
  int i, c;
  for (i = 0; i < {height * width}; ++i, pixels += {channels}, codes += {channels})
    for (c = 0; c < {channels}; ++c) codes[{place}] = pixel_codes[{row}][pixels[c]];
}}
"""
    order = "red, green, blue" if channels == 3 else "channels"
    header = f"""
/* Pixels of 0 to 255 as inputs, {height} x {width} x {channels}: {order} of a place together. */
#define EDGE_NAS_PIXELS 1
void edge_nas_set_pixels(const uint8_t *pixels);
"""
    return code, header
