// What kernels share. Every file but network.cpp and backends.cpp may be compiled for another
// instruction set, so nothing here is an inline function with external linkage.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <type_traits>
#include <vector>

#include "grouped.h"

namespace lowbit {

// How a kernel wants one pixel's channels laid out, in groups of four.
enum class Prepare {
  kRaw,     // the codes themselves
  kTable,   // 16 subset sums a group, 16 bytes
  kTables,  // 16 of the low nibbles, 16 of the high: 32 bytes
  kWide     // four 16-bit numbers: 8 bytes
};

// `pixels` rows of prepared activations times a block of outputs, over a chunk of the inner
// dimension that cannot overflow 16 bits where `depth` says so.
struct Step {
  int pixels;
  const uint8_t* const* rows;  // rows[p * row_stride + t]: pixel p, tap t
  size_t row_stride;
  int taps, groups;
  size_t offset;           // bytes from each row's beginning to the chunk
  const uint8_t* weights;  // of the first tap of the chunk
  size_t tap_stride;       // bytes from a tap's weights to the next tap's
  int32_t* sums;           // sums[p * sum_stride + n]
  size_t sum_stride;
  bool first;              // set, not add
  int depth;               // groups until the 16-bit sums must be widened
  int8_t coefficients[4];  // of the bit planes
};
using StepKernel = void (*)(const Step&);

constexpr int kPixels = 8;   // most pixels of a register tile
constexpr int kVectors = 2;  // most vectors of outputs of a tile

// The weights' layout within one vector of one group of four input channels.
enum class Layout {
  kDot4,    // `lanes` outputs x 4 channels, int8
  kDot2,    // 2 halves x `lanes` outputs x 2 channels, int16
  kPlane1,  // 32 bytes: outputs 0, 16, 1, 17, ...: one index of four bits each
  kPlane2,  // 32 bytes: 16 outputs x 2 planes
  kPlane4   // 32 bytes: 8 outputs x 4 planes
};

struct DotKernel {
  const char* name;
  Prepare prepare;
  Layout layout;
  int lanes;         // outputs of a vector
  int vector_bytes;  // of weights, a group
  int depth;         // products: groups that 16-bit sums must hold, 0 for any weights;
                     // tables: lookups summed in a byte, 0 for any codes
  StepKernel run[kVectors];  // by vectors - 1
  // The same on weights as they are kept, for one pixel, one tap and kVectors vectors, by the bits of
  // a field; null: they are unpacked first. For codes the sums are those of fields, low is not added.
  StepKernel packed[5];
};

// Groups of four channels that packed kernels take at a time: their weights fill whole units.
constexpr int kPackedGroups = 4;

// With acc = (sum * coefficient + term) * factor + bias, see lowbit_add_conv.
struct Finish {
  const int32_t* factor;
  const int32_t* bias;
  const float* multiplier;
  int32_t coefficient;
  bool factors;  // whether one of them is not 1
  int kind, function, zero_point;
  float scale, low, high;  // low and high are relative to the zero point
  bool bounded;            // whether every acc * multiplier fits 32 bits when rounded
};
// `pixels` rows of sums -> outputs first, first + 1, ... of as many rows of `out`. `terms` has one
// number a pixel to add, or is null. Sums may be read up to a whole vector past the end.
using FinishKernel = void (*)(const Finish&, const int32_t* sums, size_t sum_stride,
                              const int32_t* terms, int pixels, int first, int count, void* out,
                              size_t out_stride);

// One row of outputs of a depthwise convolution. Two taps, one below the other, lie interleaved in
// a row of prepared columns, each of `blocks` blocks of channels.
struct Strip {
  const uint8_t* const* pairs;  // of rows 0 and 1, 2 and 3, ...; column 0 is the first output's
  int pair_count, columns;      // columns of the kernel
  size_t column_step;           // bytes from a tap to the next one in its row
  size_t pixel_step;            // bytes from an output's first tap to the next output's
  int pixels, blocks;
  const uint8_t* weights;  // [block][pair][column], laid out as the columns are
  int32_t* sums;           // [pixel][channel]
  size_t sum_stride;
  int depth;  // pairs whose products' sum 16 bits hold
};
struct DepthwiseKernel {
  const char* name;
  int block;  // channels of a block
  int bytes;  // of a number
  int depth;  // pairs whose products' sum 16 bits must hold, 0 for any weights
  // `pixels` columns from rows a and b; a step of 0 repeats one column.
  void (*interleave)(const uint8_t* a, size_t a_step, const uint8_t* b, size_t b_step, int pixels,
                     int blocks, uint8_t* out);
  void (*run)(const Strip&);
};

using PrepareKernel = void (*)(Prepare, const uint8_t* codes, int channels, uint8_t* out,
                               int32_t* sum);

// Element-wise work, over [begin, end).
struct Elementwise {
  void (*quantise)(const float* in, uint8_t* out, int channels, int pixels, float scale,
                   int zero_point, int high);
  void (*sum)(const uint8_t* a, const uint8_t* b, uint8_t* out, int64_t count, float ma, float mb,
              float constant, int low, int high);
  void (*product)(const uint8_t* a, const uint8_t* b, uint8_t* out, int count, int za, int zb,
                  float m, int zero_point, int low, int high);
  void (*rescale)(const uint8_t* a, uint8_t* out, int64_t count, int za, float scale,
                  float out_scale, int zero_point, int low, int high);
  void (*column_sums)(const uint8_t* in, int pixels, int channels, int stride, int32_t* sums);
  void (*finish_mean)(const int32_t* sums, uint8_t* out, int channels, int offset, float m,
                      int zero_point, int low, int high);
  void (*maximum)(const uint8_t* in, uint8_t* out, int channels);
  // Of floats, see lowbit_rows and lowbit_pointwise.
  void (*rows)(int operation, const float* x, const float* scale, const float* bias, float* out,
               int64_t count, int64_t width, float epsilon);
  void (*pointwise)(int operation, const float* x, float* out, int64_t count);
  // One query (width,) over `count` values (count, width) and keys (count / 8, width, 8): eight lie
  // side by side. Keys and `shares` have room for whole eights.
  void (*attend)(const float* query, const float* keys, const float* values, float* shares,
                 float* out, int64_t count, int64_t width);
};

// How the bytes that a kernel reads are kept in fewer bits: byte = low + (field ? step : 0) for one
// bit, low + field for 2 to 4. 8: as they are; 16: numbers of 16 bits, kept as bytes. A unit of 32
// kept bytes (for 3 bits 64 of two bits, then 32 of one) holds 32 read bytes for each field of a byte:
// bytes 0..31 are the lowest fields, and so on.
struct Field {
  int bits;
  int8_t low;
  uint8_t step;
};
// Writes whole units, up to at least `bytes` read bytes; of fields of 1 to 4 bits.
using UnpackKernel = void (*)(const Field&, const uint8_t* from, uint8_t* to, size_t bytes);
constexpr size_t kUnpackSlack = 512;  // two units

struct Backend {
  const char* name;
  std::vector<const DotKernel*> dot;
  std::vector<const DepthwiseKernel*> depthwise;
  PrepareKernel prepare;
  FinishKernel finish;
  UnpackKernel unpack;
  GroupedKernel grouped;
  int grouped_blocks;  // that it takes at once for many rows
  QuantiseRow quantise_row;
  FinishRows finish_rows;
  Elementwise elementwise;
};

// Each is null where the build lacks it; asked for only where the processor has it (backends.cpp).
const Backend* portable_backend();
const Backend* avx2_backend();
const Backend* avx512_backend();
const Backend* amx_backend();
const Backend* neon_backend();
const Backend* neon_dotprod_backend();

constexpr size_t prepared_bytes(Prepare p) {
  return p == Prepare::kRaw ? 4 : p == Prepare::kTable ? 16 : p == Prepare::kTables ? 32 : 8;
}

}  // namespace lowbit
