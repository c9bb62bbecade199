"""Convolutions of random shapes against a plain sum over each window, under the sanitizers."""

from __future__ import annotations

import subprocess
from importlib import resources

import pytest

_HARNESS = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge_nas_arithmetic.h"
#include "edge_nas_kernels.h"

static uint32_t state;
static uint32_t next(void) {
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}
static int from_to(int low, int high) { return low + (int)(next() % (uint32_t)(high - low + 1)); }

static int weight_at(const en_conv *c, uint32_t i) {
  uint32_t field = 0, at = i * c->bits;
  int bit;
  for (bit = 0; bit < c->bits; ++bit, ++at)
    field |= (uint32_t)((c->weights[at >> 3] >> (at & 7u)) & 1) << bit;
  return c->bits == 8 ? (int8_t)field : c->low + c->step * (int)field;
}

static uint8_t expected(const en_conv *c, const uint8_t *in, int depthwise, int n, int oy, int ox) {
  const int channels = c->inputs / c->groups, group = n / (c->outputs / c->groups);
  const en_channel *k = c->channels + n;
  const int zero = c->out_zero_point;
  int32_t sum = 0;
  uint32_t w = (uint32_t)(n * c->kernel_h * c->kernel_w * channels);
  int i, j, m;
  for (i = 0; i < c->kernel_h; ++i)
    for (j = 0; j < c->kernel_w; ++j)
      for (m = 0; m < channels; ++m, ++w) {
        const int y = oy * c->stride_h - c->pad_top + i * c->dilation_h;
        const int x = ox * c->stride_w - c->pad_left + j * c->dilation_w;
        int code = c->zero_point;
        if (y >= 0 && y < c->height && x >= 0 && x < c->width) {
          code = in[(y * c->width + x) * c->inputs + group * channels + m];
          if (c->table) code = c->table[code];
        }
        sum += (code - (depthwise ? c->zero_point : 0)) * weight_at(c, w);
      }
  return (uint8_t)(en_round_exactly(sum * k->factor + k->bias, k->mantissa, k->shift, -zero,
                                    c->out_high - zero) +
                   zero);
}

static int wrong(int depthwise) {
  static const int all_bits[] = {1, 2, 3, 4, 5, 7, 8};
  uint8_t table[256], *in, *out;
  uint8_t *weights;
  en_channel *channels;
  en_conv c;
  int i, n, oy, ox, bad = 0, most, extent_h, extent_w, size;
  memset(&c, 0, sizeof c);
  c.bits = (uint8_t)all_bits[from_to(0, 6)];
  c.step = (int8_t)(c.bits == 1 ? 2 : 1);
  c.low = (int8_t)(c.bits == 1 ? -1 : -(1 << (c.bits - 1)));
  most = depthwise ? 64 : 400;
  do {
    c.kernel_h = (uint8_t)from_to(1, next() % 4 ? 4 : 20);
    c.kernel_w = (uint8_t)from_to(1, next() % 4 ? 5 : 20);
    c.groups = (uint16_t)from_to(1, 3);
    c.inputs = (uint16_t)(c.groups * from_to(1, next() % 3 ? 9 : 40));
    if (next() % 4 == 0) c.kernel_h = c.kernel_w = 1;
  } while (c.kernel_h * c.kernel_w * (depthwise ? 1 : c.inputs / c.groups) > most);
  c.outputs = (uint16_t)(c.groups * from_to(1, 7));
  if (depthwise) c.groups = c.outputs = c.inputs;
  c.stride_h = (uint8_t)from_to(1, next() % 2 ? 1 : 3);
  c.stride_w = (uint8_t)from_to(1, next() % 2 ? 1 : 5);
  c.dilation_h = (uint8_t)from_to(1, next() % 2 ? 1 : 3);
  c.dilation_w = (uint8_t)from_to(1, next() % 2 ? 1 : next() % 3 ? 3 : 90);
  extent_h = (c.kernel_h - 1) * c.dilation_h + 1;
  extent_w = (c.kernel_w - 1) * c.dilation_w + 1;
  if (next() % 4) {
    c.pad_top = (uint8_t)from_to(0, extent_h - 1 < 255 ? extent_h - 1 : 255);
    c.pad_left = (uint8_t)from_to(0, extent_w - 1 < 255 ? extent_w - 1 : 255);
  }
  c.height = (uint16_t)from_to(1, 9);
  c.width = (uint16_t)from_to(1, 45);
  if (next() % 4 == 0) c.height = c.width = 1;
  c.out_height = (uint16_t)from_to(1, 6);
  c.out_width = (uint16_t)from_to(1, 40);
  if (c.kernel_h * c.kernel_w == 1 && next() % 2) { /* read where it lies */
    c.stride_h = c.stride_w = 1;
    c.pad_top = c.pad_left = 0;
    c.out_height = c.height;
    c.out_width = c.width;
    c.groups = depthwise ? c.groups : 1;
  }
  c.zero_point = (uint8_t)from_to(0, 255);
  c.out_zero_point = (uint8_t)from_to(0, 255);
  c.out_high = 255;
  for (i = 0; i < 256; ++i) table[i] = (uint8_t)next();
  if (next() % 3 == 0) c.table = table;
  size = c.outputs * c.kernel_h * c.kernel_w * (c.inputs / c.groups);
  weights = malloc((size_t)(size * c.bits + 7) / 8);
  for (i = 0; i < (size * c.bits + 7) / 8; ++i) weights[i] = (uint8_t)next();
  c.weights = weights;
  channels = malloc(sizeof *channels * c.outputs);
  for (i = 0; i < c.outputs; ++i) {
    channels[i].bias = from_to(-9000, 9000);
    channels[i].mantissa = from_to(1 << 29, 0x7fffffff - 255);
    channels[i].factor = (int16_t)from_to(1, 3);
    channels[i].shift = (int16_t)from_to(30, 44);
  }
  c.channels = channels;
  in = malloc((size_t)c.height * c.width * c.inputs);
  for (i = 0; i < c.height * c.width * c.inputs; ++i) in[i] = (uint8_t)next();
  out = malloc((size_t)c.out_height * c.out_width * c.outputs);
  (depthwise ? en_run_depthwise : en_run_conv)(&c, in, out);
  for (oy = i = 0; oy < c.out_height; ++oy)
    for (ox = 0; ox < c.out_width; ++ox)
      for (n = 0; n < c.outputs; ++n, ++i) bad += out[i] != expected(&c, in, depthwise, n, oy, ox);
  if (bad)
    printf("%d of %d differ: kernel %d x %d, inputs %d, outputs %d, groups %d, strides %d %d, "
           "dilations %d %d, pads %d %d, bits %d, image %d x %d -> %d x %d\n",
           bad, i, c.kernel_h, c.kernel_w, c.inputs, c.outputs, c.groups, c.stride_h, c.stride_w,
           c.dilation_h, c.dilation_w, c.pad_top, c.pad_left, c.bits, c.height, c.width,
           c.out_height, c.out_width);
  free(weights);
  free(channels);
  free(in);
  free(out);
  return bad != 0;
}

int main(int count, char **arguments) {
  int i, bad = 0;
  (void)count;
  for (i = 0; i < atoi(arguments[1]); ++i) {
    state = (uint32_t)i * 2654435761u;
    next();
    bad += wrong(i % 2);
  }
  return bad != 0;
}
"""


def test_convolutions_of_any_shape_are_sums_over_their_windows(c_compiler, tmp_path):
    sources = resources.files("nas.models.c_project") / "sources"
    (tmp_path / "harness.c").write_text(_HARNESS)
    with resources.as_file(sources) as folder:
        files = [folder / f"edge_nas_{name}.c" for name in ("kernels", "operators", "arithmetic")]
        flags = ["-O1", "-std=c99", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]
        subprocess.run(
            [c_compiler, *flags, "-fsanitize=address,undefined", f"-I{folder}", "harness.c",
             *map(str, files), "-o", "harness"],
            cwd=tmp_path, check=True,
        )  # fmt: skip
    done = subprocess.run(
        ["./harness", "600"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if "LeakSanitizer has encountered a fatal error" in done.stderr:
        pytest.skip("the sanitizer cannot run here")
    assert done.returncode == 0, done.stdout + done.stderr
