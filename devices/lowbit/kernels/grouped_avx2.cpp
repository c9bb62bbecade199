// Grouped linear layers for x86-64 with AVX2.
#include "internal.h"

#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-ter")  // as in avx2.cpp: tiles stay in registers
#endif
#include <immintrin.h>

#include <cstring>

namespace lowbit {
namespace {

#include "fields_avx2.inc"
#include "grouped_rows.inc"

constexpr int kRegisterRows = 6;  // their sums of 16 outputs, fields and products fill 16 registers

// Unrolled, so that the sums stay in registers.
#define EACH(p, v)                                        \
  _Pragma("GCC unroll 6") for (int p = 0; p < P; ++p) \
      _Pragma("GCC unroll 2") for (int v = 0; v < 2; ++v)

// sum = fma(products - zero, scale, sum) of P rows with a group's fields `u` of 16 outputs.
template <int P>
void tile(const GroupedStep& s, int row, int g, const uint8_t* u, const __m256 (&scale)[2], float* sums) {
  constexpr int kMost[] = {0, 127, 42, 18, 8};  // of two products of 128 and a field, in 16 bits
  const int most = kMost[s.bits];
  const __m256i one = _mm256_set1_epi16(1);
  const uint8_t* a = reinterpret_cast<const uint8_t*>(s.codes) + row * s.row_bytes +
                     static_cast<size_t>(g) * s.steps * kStepChannels;
  const size_t row_bytes = s.row_bytes, stride = s.sum_stride, groups = s.groups;
  const float* const zeros = s.zeros + row * groups + g;
  sums += row * stride;
  __m256i total[P][2];  // of all but the last sums, where 16 bits do not hold them at once
  for (int begin = 0, fours = s.steps * 4; begin < fours; begin += most) {
    __m256i sum[P][2];
    EACH(p, v) sum[p][v] = _mm256_setzero_si256();
    const uint8_t* const end = u + (fours - begin < most ? fours - begin : most) * 64;
    for (; u < end; u += 64, a += 4) {
      const __m256i u0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(u));
      const __m256i u1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(u + 32));
#pragma GCC unroll 6
      for (int p = 0; p < P; ++p) {
        const __m256i x = four_codes(a + p * row_bytes);
        add_words(sum[p][0], _mm256_maddubs_epi16(u0, x));
        add_words(sum[p][1], _mm256_maddubs_epi16(u1, x));
      }
    }
    EACH(p, v) sum[p][v] = _mm256_madd_epi16(sum[p][v], one);
    if (begin)
      EACH(p, v) sum[p][v] = _mm256_add_epi32(sum[p][v], total[p][v]);
    if (fours - begin > most) {
      EACH(p, v) total[p][v] = sum[p][v];
      continue;
    }
    EACH(p, v) {
      const __m256 zero = _mm256_broadcast_ss(zeros + p * groups);
      const __m256 f = _mm256_sub_ps(_mm256_cvtepi32_ps(sum[p][v]), zero);
      float* to = sums + p * stride + 8 * v;
      _mm256_storeu_ps(to, _mm256_fmadd_ps(f, scale[v], _mm256_loadu_ps(to)));
    }
  }
}
#undef EACH

void many_rows(const GroupedStep& s) {
  constexpr decltype(&tile<1>) kTiles[] = {tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};
  const size_t fields = static_cast<size_t>(s.steps) * 256;  // of a block, a group and a plane
  const int tiles = (s.rows + kRegisterRows - 1) / kRegisterRows;
  for (int r = 0; r < s.rows; ++r)
    std::memset(s.sums + r * s.sum_stride, 0, sizeof(float) * kBlockOutputs * s.blocks);
  for (int g = 0; g < s.groups; ++g) {
    for (int plane = 0; plane < s.planes; ++plane) {
      const size_t part = static_cast<size_t>(g) * s.planes + plane;
      __m256 scale[kMostBlocks][2];
      for (int b = 0; b < s.blocks; ++b) {
        const GroupedStep one = one_block(s, b);
        avx2_backend()->unpack({s.bits, 0, 1}, one.weights + part * fields * s.bits / 8,
                               s.room + b * fields, fields);
        for (int v = 0; v < 2; ++v) scale[b][v] = halves(one.scales + part * kBlockOutputs + 8 * v);
      }
      // Of one size, give or take a row.
      for (int i = 0; i < tiles; ++i) {
        const int row = s.rows * i / tiles, next = s.rows * (i + 1) / tiles;
        for (int b = 0; b < s.blocks; ++b)
          kTiles[next - row - 1](s, row, g, s.room + b * fields, scale[b], s.sums + b * kBlockOutputs);
      }
    }
    for (int b = 0; s.mins && b < s.blocks; ++b) add_mins(one_block(s, b), g);
  }
}

}  // namespace

void grouped_avx2(const GroupedStep& s) {
  if (s.rows > kRegisterRows)
    many_rows(s);
  else
    for (int b = 0; b < s.blocks; ++b) few_rows(one_block(s, b));
}

}  // namespace lowbit

#endif
