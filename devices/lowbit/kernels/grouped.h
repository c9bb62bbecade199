// Linear layers of weights alone: floats in and out, activations quantised by row as they come, weights of
// 1 to 4 bits with scales for groups of input channels.
//
// Sixteen outputs are a block. Its weights lie in the order [group][plane][fields], the fields as in
// Field: 256 of them, 16 channels of 16 outputs, are a step; of four channels first the first eight
// outputs, each with its channels side by side, then the other eight.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace lowbit {

constexpr int kBlockOutputs = 16;
constexpr int kStepChannels = 16;
constexpr int kMostBlocks = 4;  // at once, of any kernel
constexpr int kManyRows = 3;    // where fields are worth unpacking, and blocks come several at once
constexpr int kTileRows = 16;   // room for codes is a multiple of so many rows, and 0 behind a row

// Rows of quantised activations times some blocks of outputs.
struct GroupedStep {
  int rows;
  int blocks;           // up to Backend::grouped_blocks, 1 for a layer of less than kManyRows
  const int8_t* codes;  // [row][channel], within -127..127
  size_t row_bytes;
  const uint8_t* weights;  // of the first block
  size_t block_bytes;      // from a block's weights to the next one's
  int bits, planes, groups;
  int steps;               // of a group
  const uint16_t* scales;  // float16 [block][group][plane][output]
  const uint16_t* mins;    // float16 [block][group][output], or null
  size_t numbers;          // groups times outputs of a block
  const float* totals;     // [row][group]: sum of the group's codes
  const float* zeros;      // [row][group]: the same times the field that means 0
  float* sums;             // [row][block][output]: the result, set
  size_t sum_stride;       // from a row's sums to the next one's
  uint8_t* room;           // blocks * steps * 256 + 2 * kUnpackSlack bytes
};
// Over the groups in their order, over the planes in theirs:
// sum = fma(products - zeros, scale, sum), then sum = fma(min, total, sum). So all kernels give the
// same bits.
using GroupedKernel = void (*)(const GroupedStep&);

// One block of a step alone; its sums stay as far apart as they are.
static inline GroupedStep one_block(const GroupedStep& s, int block) {
  GroupedStep one = s;
  one.weights += block * s.block_bytes;
  one.scales += block * s.numbers * s.planes;
  if (s.mins) one.mins += block * s.numbers;
  one.sums += block * kBlockOutputs;
  return one;
}

// One row: codes = round(x * factor / scale) for scale = max |x * factor| / 127, and their sums by
// group. `factor` is null for 1. `codes` past the last channel up to `padded` are set to 0. Returns
// the scale, 0 for a row of zeros.
using QuantiseRow = float (*)(const float* x, const float* factor, int channels, int padded,
                              int group, int8_t* codes, float* totals);

// out = sums * scale of the row + bias of the output, which may be null.
using FinishRows = void (*)(const float* sums, size_t stride, const float* scales, const float* bias,
                            int rows, int count, float* out, size_t out_stride);

}  // namespace lowbit
