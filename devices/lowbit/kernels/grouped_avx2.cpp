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

constexpr int kTileRows = 3;  // a fourth would leave a sum in memory

// Products of P rows with a group's unpacked fields, 16 outputs.
template <int P, int kBits>
inline void tile(const GroupedStep& s, int row, int g, const uint8_t* u, int32_t (*to)[16]) {
  constexpr int kMost = 32767 / (2 * 128 * ((1 << kBits) - 1));
  const __m256i one = _mm256_set1_epi16(1);
  const uint8_t* a[P];
  for (int p = 0; p < P; ++p)
    a[p] = reinterpret_cast<const uint8_t*>(s.codes) + (row + p) * s.row_bytes +
           static_cast<size_t>(g) * s.steps * kStepChannels;
  bool first = true;
  for (int i = 0, end = 0; i < s.steps * 4;) {
    end = s.steps * 4 - i < kMost ? s.steps * 4 : i + kMost;
    __m256i sum[P][2];
    for (auto& row_sums : sum)
      for (auto& v : row_sums) v = _mm256_setzero_si256();
    for (; i < end; ++i, u += 64) {
      const __m256i u0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(u));
      const __m256i u1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(u + 32));
      for (int p = 0; p < P; ++p) {
        const __m256i x = four_codes(a[p] + i * 4);
        sum[p][0] = _mm256_add_epi16(sum[p][0], _mm256_maddubs_epi16(u0, x));
        sum[p][1] = _mm256_add_epi16(sum[p][1], _mm256_maddubs_epi16(u1, x));
      }
    }
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < 2; ++v) {
        __m256i* at = reinterpret_cast<__m256i*>(to[p] + 8 * v);
        const __m256i wide = _mm256_madd_epi16(sum[p][v], one);
        _mm256_storeu_si256(at, first ? wide : _mm256_add_epi32(wide, _mm256_loadu_si256(at)));
      }
    first = false;
  }
}

template <int kBits>
void tiles(const GroupedStep& s, int g, int plane) {
  const __m256 scale[2] = {halves(s.scales + (g * s.planes + plane) * kBlockOutputs),
                           halves(s.scales + (g * s.planes + plane) * kBlockOutputs + 8)};
  for (int row = 0; row < s.rows;) {
    int32_t products[kTileRows][16];
    const int many = s.rows - row < kTileRows ? 1 : kTileRows;
    if (many == kTileRows)
      tile<kTileRows, kBits>(s, row, g, s.room, products);
    else
      tile<1, kBits>(s, row, g, s.room, products);
    for (int p = 0; p < many; ++p, ++row) {
      const __m256 zero = _mm256_broadcast_ss(s.zeros + static_cast<size_t>(row) * s.groups + g);
      for (int v = 0; v < 2; ++v) {
        float* to = s.sums + row * s.sum_stride + 8 * v;
        const __m256 f = _mm256_cvtepi32_ps(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(products[p] + 8 * v)));
        _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_sub_ps(f, zero), scale[v], _mm256_loadu_ps(to)));
      }
    }
  }
}

template <int kBits>
void many_rows(const GroupedStep& s) {
  for (int r = 0; r < s.rows; ++r)
    std::memset(s.sums + r * s.sum_stride, 0, sizeof(float) * kBlockOutputs);
  const size_t plane_bytes = static_cast<size_t>(s.steps) * 32 * kBits;
  const uint8_t* weights = s.weights;
  for (int g = 0; g < s.groups; ++g) {
    for (int plane = 0; plane < s.planes; ++plane, weights += plane_bytes) {
      avx2_backend()->unpack({kBits, 0, 1}, weights, s.room, static_cast<size_t>(s.steps) * 256);
      tiles<kBits>(s, g, plane);
    }
    if (s.mins) add_mins(s, g);
  }
}

}  // namespace

void grouped_avx2(const GroupedStep& s) {
  if (s.rows >= 4) {
    constexpr GroupedKernel kRun[] = {many_rows<1>, many_rows<2>, many_rows<3>, many_rows<4>};
    kRun[s.bits - 1](s);
  } else {
    few_rows(s);
  }
}

}  // namespace lowbit

#endif
