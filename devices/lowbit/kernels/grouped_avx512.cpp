// Grouped linear layers for x86-64 with AVX-512 and VNNI.
#include "internal.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>

#include <cstring>

namespace lowbit {
namespace {

#include "fields_avx2.inc"
#include "grouped_rows.inc"

// P rows with a group's unpacked fields of B blocks: 16 outputs are one vector.
template <int P, int B>
inline void tile(const GroupedStep& s, int row, int g, const __m512 (&scale)[B]) {
  __m512i sum[P][B];
  const uint8_t* a[P];
  for (int p = 0; p < P; ++p) {
    for (int b = 0; b < B; ++b) sum[p][b] = _mm512_setzero_si512();
    a[p] = reinterpret_cast<const uint8_t*>(s.codes) + (row + p) * s.row_bytes +
           static_cast<size_t>(g) * s.steps * kStepChannels;
  }
  const size_t block_room = static_cast<size_t>(s.steps) * 256;
  const uint8_t* u = s.room;
  for (int i = 0; i < s.steps * 4; ++i, u += 64) {
    __m512i w[B];
    for (int b = 0; b < B; ++b) w[b] = _mm512_load_si512(u + b * block_room);
    for (int p = 0; p < P; ++p) {
      int32_t four;
      std::memcpy(&four, a[p] + i * 4, 4);
      const __m512i x = _mm512_set1_epi32(four);
      for (int b = 0; b < B; ++b) asm("vpdpbusd %2, %1, %0" : "+v"(sum[p][b]) : "v"(w[b]), "v"(x));
    }
  }
  for (int p = 0; p < P; ++p) {
    const __m512 zero = _mm512_set1_ps(s.zeros[static_cast<size_t>(row + p) * s.groups + g]);
    for (int b = 0; b < B; ++b) {
      float* to = s.sums + (row + p) * sum_stride(s) + b * kBlockOutputs;
      _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(sum[p][b]), zero),
                                           scale[b], _mm512_loadu_ps(to)));
    }
  }
}

template <int B>
void many_rows(const GroupedStep& s) {
  std::memset(s.sums, 0, sizeof(float) * s.rows * sum_stride(s));
  const size_t plane_bytes = static_cast<size_t>(s.steps) * 32 * s.bits;
  const size_t block_room = static_cast<size_t>(s.steps) * 256;
  for (int g = 0; g < s.groups; ++g) {
    for (int plane = 0; plane < s.planes; ++plane) {
      const size_t part = static_cast<size_t>(g) * s.planes + plane;
      __m512 scale[B];
      for (int b = 0; b < B; ++b) {
        const GroupedStep one = one_block(s, b);
        avx2_backend()->unpack({s.bits, 0, 1}, one.weights + part * plane_bytes,
                               s.room + b * block_room, block_room);
        scale[b] = _mm512_cvtph_ps(_mm256_loadu_si256(
            reinterpret_cast<const __m256i*>(one.scales + part * kBlockOutputs)));
      }
      int row = 0;
      constexpr int kRows = 8;
      for (; row + kRows <= s.rows; row += kRows) tile<kRows, B>(s, row, g, scale);
      for (; row + 2 <= s.rows; row += 2) tile<2, B>(s, row, g, scale);
      if (row < s.rows) tile<1, B>(s, row, g, scale);
    }
    if (s.mins)
      for (int b = 0; b < B; ++b) add_mins(one_block(s, b), g);
  }
}

}  // namespace

void grouped_avx512(const GroupedStep& s) {
  if (s.blocks == 2)
    many_rows<2>(s);
  else if (s.rows >= 3)
    many_rows<1>(s);
  else
    few_rows(s);
}

}  // namespace lowbit

#endif
