// Grouped linear layers for x86-64 with AVX-512 and VNNI.
#include "internal.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>

#include <cstring>

namespace lowbit {
namespace {

#include "fields_avx2.inc"
#include "grouped_rows.inc"

// P rows with a group's unpacked fields: 16 outputs are one vector.
template <int P>
inline void tile(const GroupedStep& s, int row, int g, __m512 scale) {
  __m512i sum[P];
  const uint8_t* a[P];
  for (int p = 0; p < P; ++p) {
    sum[p] = _mm512_setzero_si512();
    a[p] = reinterpret_cast<const uint8_t*>(s.codes) + (row + p) * s.row_bytes +
           static_cast<size_t>(g) * s.steps * kStepChannels;
  }
  const uint8_t* u = s.room;
  for (int i = 0; i < s.steps * 4; ++i, u += 64) {
    const __m512i w = _mm512_load_si512(u);
    for (int p = 0; p < P; ++p) {
      int32_t four;
      std::memcpy(&four, a[p] + i * 4, 4);
      sum[p] = _mm512_dpbusd_epi32(sum[p], w, _mm512_set1_epi32(four));
    }
  }
  for (int p = 0; p < P; ++p) {
    float* to = s.sums + (row + p) * kBlockOutputs;
    const __m512 zero = _mm512_set1_ps(s.zeros[static_cast<size_t>(row + p) * s.groups + g]);
    _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(sum[p]), zero), scale,
                                         _mm512_loadu_ps(to)));
  }
}

void many_rows(const GroupedStep& s) {
  std::memset(s.sums, 0, sizeof(float) * s.rows * kBlockOutputs);
  const size_t plane_bytes = static_cast<size_t>(s.steps) * 32 * s.bits;
  const uint8_t* weights = s.weights;
  for (int g = 0; g < s.groups; ++g) {
    for (int plane = 0; plane < s.planes; ++plane, weights += plane_bytes) {
      avx2_backend()->unpack({s.bits, 0, 1}, weights, s.room, static_cast<size_t>(s.steps) * 256);
      const size_t at = (static_cast<size_t>(g) * s.planes + plane) * kBlockOutputs;
      const __m512 scale = _mm512_cvtph_ps(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(s.scales + at)));
      int row = 0;
      for (; row + 8 <= s.rows; row += 8) tile<8>(s, row, g, scale);
      for (; row + 2 <= s.rows; row += 2) tile<2>(s, row, g, scale);
      if (row < s.rows) tile<1>(s, row, g, scale);
    }
    if (s.mins) add_mins(s, g);
  }
}

}  // namespace

void grouped_avx512(const GroupedStep& s) {
  if (s.rows >= 3)
    many_rows(s);
  else
    few_rows(s);
}

}  // namespace lowbit

#endif
