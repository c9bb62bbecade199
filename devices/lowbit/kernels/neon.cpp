// Kernels for Arm with NEON (AArch64).
#include "internal.h"

#if defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>

#include <cmath>
#include <cstring>

#include "lowbit.h"

namespace lowbit {

void grouped_neon(const GroupedStep&);

namespace {

#include "elementwise.inc"

// The layouts are those of 32-byte vectors: here two registers each.
constexpr int kHalf = 2;

// Grouped tables by TBL; `kDepth` bytes are summed before they could pass 255.
template <int V, int kPlanes, int kDepth, bool kTwo>
void lookup(const Step& s) {
  constexpr int kNibbles = kTwo ? 2 : 1, kBytes = kTwo ? 32 : 16;
  constexpr int kOutputs = V * 32 / kPlanes;
  for (int p = 0; p < s.pixels; ++p) {
    // Even and odd bytes apart: outputs of one plane, or the planes of an output.
    uint16x8_t even[V][kHalf][kNibbles], odd[V][kHalf][kNibbles];
    for (int v = 0; v < V; ++v)
      for (int h = 0; h < kHalf; ++h)
        for (int n = 0; n < kNibbles; ++n) even[v][h][n] = odd[v][h][n] = vdupq_n_u16(0);
    for (int t = 0; t < s.taps; ++t) {
      const uint8_t* table = s.rows[p * s.row_stride + t] + s.offset;
      const uint8_t* index = s.weights + t * s.tap_stride;
      for (int g = 0; g < s.groups; g += kDepth) {
        const int many = s.groups - g < kDepth ? s.groups - g : kDepth;
        uint8x16_t sum[V][kHalf][kNibbles];
        for (int d = 0; d < many; ++d) {
          uint8x16_t entries[kNibbles];
          for (int n = 0; n < kNibbles; ++n)
            entries[n] = vld1q_u8(table + (g + d) * kBytes + 16 * n);
          for (int v = 0; v < V; ++v)
            for (int h = 0; h < kHalf; ++h) {
              const uint8x16_t i = vld1q_u8(index + ((g + d) * V + v) * 32 + 16 * h);
              for (int n = 0; n < kNibbles; ++n) {
                const uint8x16_t found = vqtbl1q_u8(entries[n], i);
                sum[v][h][n] = d ? vaddq_u8(sum[v][h][n], found) : found;
              }
            }
        }
        for (int v = 0; v < V; ++v)
          for (int h = 0; h < kHalf; ++h)
            for (int n = 0; n < kNibbles; ++n) {
              const uint16x8_t pair = vreinterpretq_u16_u8(sum[v][h][n]);
              even[v][h][n] = vaddq_u16(even[v][h][n], vandq_u16(pair, vdupq_n_u16(255)));
              odd[v][h][n] = vsraq_n_u16(odd[v][h][n], pair, 8);
            }
      }
    }
    int32_t total[kOutputs] = {};
    for (int v = 0; v < V; ++v)
      for (int h = 0; h < kHalf; ++h)
        for (int n = 0; n < kNibbles; ++n) {
          uint16_t e[8], o[8];
          vst1q_u16(e, even[v][h][n]);
          vst1q_u16(o, odd[v][h][n]);
          const int scale = n ? 16 : 1;
          for (int i = 0; i < 8; ++i) {
            if (kPlanes == 1) {
              total[v * 32 + h * 8 + i] += scale * e[i];
              total[v * 32 + 16 + h * 8 + i] += scale * o[i];
            } else {
              const int byte = h * 16 + 2 * i;
              total[(v * 32 + byte) / kPlanes] +=
                  scale * (s.coefficients[byte % kPlanes] * e[i] +
                           s.coefficients[(byte + 1) % kPlanes] * o[i]);
            }
          }
        }
    int32_t* to = s.sums + p * s.sum_stride;
    for (int n = 0; n < kOutputs; ++n) to[n] = total[n] + (s.first ? 0 : to[n]);
  }
}

// Products of 16-bit numbers widened to 32: exact for all codes, on every AArch64.
template <int V>
void dot(const Step& s) {
  for (int p = 0; p < s.pixels; ++p) {
    int32x4_t total[V * 8];
    for (int n = 0; n < V * 8; ++n) total[n] = vdupq_n_s32(0);
    for (int t = 0; t < s.taps; ++t) {
      const uint8_t* row = s.rows[p * s.row_stride + t] + s.offset;
      const int8_t* w = reinterpret_cast<const int8_t*>(s.weights + t * s.tap_stride);
      for (int g = 0; g < s.groups; ++g, row += 4) {
        uint32_t four;
        std::memcpy(&four, row, 4);
        const int16x4_t a = vget_low_s16(vreinterpretq_s16_u16(
            vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)))));
        for (int n = 0; n < V * 8; n += 2, w += 8) {
          const int16x8_t both = vmovl_s8(vld1_s8(w));
          total[n] = vmlal_s16(total[n], a, vget_low_s16(both));
          total[n + 1] = vmlal_s16(total[n + 1], a, vget_high_s16(both));
        }
      }
    }
    int32_t* to = s.sums + p * s.sum_stride;
    for (int n = 0; n < V * 8; ++n) to[n] = vaddvq_s32(total[n]) + (s.first ? 0 : to[n]);
  }
}

#define TILES(f, ...) {f<1, ##__VA_ARGS__>, f<2, ##__VA_ARGS__>}
#define TABLES(name, planes, lanes, depth)                                                  \
  {name, Prepare::kTable, Layout::kPlane##planes, lanes, 32, depth,                         \
   TILES(lookup, planes, depth, false), {}}

const DotKernel kDot[] = {
    {"dot_neon", Prepare::kRaw, Layout::kDot4, 8, 32, 0, {dot<1>, dot<2>}, {}},
    TABLES("tables1x8_neon", 1, 32, 8), TABLES("tables1x4_neon", 1, 32, 4),
    TABLES("tables1x2_neon", 1, 32, 2), TABLES("tables1x1_neon", 1, 32, 1),
    TABLES("tables2x8_neon", 2, 16, 8), TABLES("tables2x4_neon", 2, 16, 4),
    TABLES("tables2x2_neon", 2, 16, 2), TABLES("tables2x1_neon", 2, 16, 1),
    TABLES("tables4x8_neon", 4, 8, 8),  TABLES("tables4x4_neon", 4, 8, 4),
    TABLES("tables4x2_neon", 4, 8, 2),  TABLES("tables4x1_neon", 4, 8, 1),
    {"nibble_tables1_neon", Prepare::kTables, Layout::kPlane1, 32, 32, 0,
     TILES(lookup, 1, 4, true), {}},
    {"nibble_tables2_neon", Prepare::kTables, Layout::kPlane2, 16, 32, 0,
     TILES(lookup, 2, 4, true), {}},
    {"nibble_tables4_neon", Prepare::kTables, Layout::kPlane4, 8, 32, 0,
     TILES(lookup, 4, 4, true), {}},
};

void prepare(Prepare kind, const uint8_t* codes, int channels, uint8_t* out, int32_t* total) {
  if (kind != Prepare::kTable && kind != Prepare::kTables) {
    portable_backend()->prepare(kind, codes, channels, out, total);
    return;
  }
  if (total) {
    *total = 0;
    for (int c = 0; c < channels; ++c) *total += codes[c];
  }
  // Entry i sums the codes whose bit of i is set; an index beyond the table gives zero.
  uint8_t pick[4][16];
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 16; ++i) pick[j][i] = static_cast<uint8_t>(i >> j & 1 ? j : 255);
  uint8x16_t control[4];
  for (int j = 0; j < 4; ++j) control[j] = vld1q_u8(pick[j]);
  for (int c = 0; c < channels; c += 4) {
    uint8_t four[16] = {};
    std::memcpy(four, codes + c, static_cast<size_t>(channels - c < 4 ? channels - c : 4));
    const uint8x16_t q = vld1q_u8(four);
    for (int half = 0; half < (kind == Prepare::kTables ? 2 : 1); ++half, out += 16) {
      const uint8x16_t part = kind == Prepare::kTable ? q
                              : half                  ? vshrq_n_u8(q, 4)
                                                      : vandq_u8(q, vdupq_n_u8(15));
      uint8x16_t sum = vqtbl1q_u8(part, control[0]);
      for (int j = 1; j < 4; ++j) sum = vaddq_u8(sum, vqtbl1q_u8(part, control[j]));
      vst1q_u8(out, sum);
    }
  }
}

Backend make() {
  Backend backend = {"neon", {}, {}, prepare, finish_plain, unpack, grouped_neon, 1, quantise_row,
                     finish_rows,
                     {quantise, sum, product, rescale, column_sums, finish_mean, maximum,
                      rows, pointwise, attend}};
  for (const DotKernel& k : kDot) backend.dot.push_back(&k);
  return backend;
}

}  // namespace

const Backend* neon_backend() {
  static const Backend backend = make();
  return &backend;
}

}  // namespace lowbit

#else

namespace lowbit {
const Backend* neon_backend() { return nullptr; }
}  // namespace lowbit

#endif
