// Plain C++ for any processor: the fallback, and the meaning of every other kernel.
#include <cmath>

#include "internal.h"
#include "lowbit.h"

namespace lowbit {

void grouped_portable(const GroupedStep&);

namespace {

#include "elementwise.inc"

constexpr int kLanes = 8;

// Codes times codes, 8 outputs x 4 channels at a time.
template <int V>
void dot(const Step& s) {
  for (int p = 0; p < s.pixels; ++p) {
    int32_t total[V * kLanes] = {};
    for (int t = 0; t < s.taps; ++t) {
      const uint8_t* row = s.rows[p * s.row_stride + t] + s.offset;
      const uint8_t* weights = s.weights + t * s.tap_stride;
      for (int g = 0; g < s.groups; ++g, row += 4) {
        const int8_t* w = reinterpret_cast<const int8_t*>(weights) + g * V * kLanes * 4;
        for (int n = 0; n < V * kLanes; ++n, w += 4)
          total[n] += row[0] * w[0] + row[1] * w[1] + row[2] * w[2] + row[3] * w[3];
      }
    }
    int32_t* to = s.sums + p * s.sum_stride;
    for (int n = 0; n < V * kLanes; ++n) to[n] = total[n] + (s.first ? 0 : to[n]);
  }
}

// Grouped tables: an index of four one-bit weights looks up the sum of the activations it picks.
// Planes of an output lie in adjacent bytes.
template <int V, int kPlanes, bool kTwo>
void lookup(const Step& s) {
  constexpr int kOutputs = V * 32 / kPlanes;
  for (int p = 0; p < s.pixels; ++p) {
    int32_t total[kOutputs] = {};
    for (int t = 0; t < s.taps; ++t) {
      const uint8_t* table = s.rows[p * s.row_stride + t] + s.offset;
      const uint8_t* index = s.weights + t * s.tap_stride;
      for (int g = 0; g < s.groups; ++g, table += kTwo ? 32 : 16, index += V * 32)
        for (int i = 0; i < V * 32; ++i) {
          int value = table[index[i]];
          if (kTwo) value += 16 * table[16 + index[i]];
          const int in_vector = i % 32;
          // One plane: even bytes are outputs 0..15, odd bytes 16..31 of the vector.
          const int output = kPlanes == 1 ? (i / 32) * 32 + in_vector / 2 + 16 * (in_vector % 2)
                                          : i / kPlanes;
          total[output] += value * (kPlanes == 1 ? 1 : s.coefficients[i % kPlanes]);
        }
    }
    int32_t* to = s.sums + p * s.sum_stride;
    for (int n = 0; n < kOutputs; ++n) to[n] = total[n] + (s.first ? 0 : to[n]);
  }
}

#define TILES(f, ...) {f<1, ##__VA_ARGS__>, f<2, ##__VA_ARGS__>}

const DotKernel kDot = {"dot_portable", Prepare::kRaw, Layout::kDot4, kLanes, 32, 0,
                        {dot<1>, dot<2>}, {}};
const DotKernel kLookup1 = {"tables1_portable", Prepare::kTable, Layout::kPlane1, 32, 32, 0,
                            TILES(lookup, 1, false), {}};
const DotKernel kLookup2 = {"tables2_portable", Prepare::kTable, Layout::kPlane2, 16, 32, 0,
                            TILES(lookup, 2, false), {}};
const DotKernel kLookup4 = {"tables4_portable", Prepare::kTable, Layout::kPlane4, 8, 32, 0,
                            TILES(lookup, 4, false), {}};
const DotKernel kNibbles1 = {"nibble_tables1_portable", Prepare::kTables, Layout::kPlane1, 32, 32,
                             0, TILES(lookup, 1, true), {}};
const DotKernel kNibbles2 = {"nibble_tables2_portable", Prepare::kTables, Layout::kPlane2, 16, 32,
                             0, TILES(lookup, 2, true), {}};
const DotKernel kNibbles4 = {"nibble_tables4_portable", Prepare::kTables, Layout::kPlane4, 8, 32,
                             0, TILES(lookup, 4, true), {}};

constexpr int kBlock = 16;

void interleave(const uint8_t* a, size_t a_step, const uint8_t* b, size_t b_step, int pixels,
                int blocks, uint8_t* out) {
  for (int p = 0; p < pixels; ++p, a += a_step, b += b_step)
    for (int c = 0; c < blocks * kBlock; ++c) {
      *out++ = a[c];
      *out++ = b[c];
    }
}

void depthwise(const Strip& s) {
  for (int block = 0; block < s.blocks; ++block) {
    const int8_t* weights =
        reinterpret_cast<const int8_t*>(s.weights) + block * s.pair_count * s.columns * 2 * kBlock;
    for (int p = 0; p < s.pixels; ++p) {
      int32_t total[kBlock] = {};
      const int8_t* w = weights;
      for (int i = 0; i < s.pair_count; ++i) {
        const uint8_t* from = s.pairs[i] + p * s.pixel_step + block * 2 * kBlock;
        for (int j = 0; j < s.columns; ++j, from += s.column_step, w += 2 * kBlock)
          for (int c = 0; c < kBlock; ++c)
            total[c] += from[2 * c] * w[2 * c] + from[2 * c + 1] * w[2 * c + 1];
      }
      int32_t* to = s.sums + p * s.sum_stride + block * kBlock;
      for (int c = 0; c < kBlock; ++c) to[c] = total[c];
    }
  }
}
const DepthwiseKernel kDepthwise = {"depthwise_portable", kBlock, 1, 0, interleave, depthwise};

void prepare(Prepare kind, const uint8_t* codes, int channels, uint8_t* out, int32_t* total) {
  if (total) {
    *total = 0;
    for (int c = 0; c < channels; ++c) *total += codes[c];
  }
  for (int c = 0; c < channels; c += 4) {
    uint8_t q[4] = {};
    for (int j = 0; j < 4 && c + j < channels; ++j) q[j] = codes[c + j];
    if (kind == Prepare::kRaw) {
      for (int j = 0; j < 4; ++j) *out++ = q[j];
    } else if (kind == Prepare::kWide) {
      int16_t* wide = reinterpret_cast<int16_t*>(out);
      for (int j = 0; j < 4; ++j) wide[j] = q[j];
      out += 8;
    } else {
      for (int half = 0; half < (kind == Prepare::kTables ? 2 : 1); ++half)
        for (int i = 0; i < 16; ++i) {
          int value = 0;
          for (int j = 0; j < 4; ++j)
            if (i >> j & 1)
              value += kind == Prepare::kTable ? q[j] : half ? q[j] >> 4 : q[j] & 15;
          *out++ = static_cast<uint8_t>(value);
        }
    }
  }
}

const Backend kBackend = {
    "portable",
    {&kDot, &kLookup1, &kLookup2, &kLookup4, &kNibbles1, &kNibbles2, &kNibbles4},
    {&kDepthwise},
    prepare,
    finish_plain,
    unpack,
    grouped_portable,
    1,
    quantise_row,
    finish_rows,
    {quantise, sum, product, rescale, column_sums, finish_mean, maximum,
                      rows, pointwise, attend}};

}  // namespace

const Backend* portable_backend() { return &kBackend; }

}  // namespace lowbit
