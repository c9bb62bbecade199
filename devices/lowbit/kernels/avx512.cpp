// Kernels for x86-64 with AVX-512 and its dot product of bytes (VNNI).
#include "internal.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "lowbit.h"

namespace lowbit {
namespace {

#include "elementwise.inc"

constexpr int kLanes = 16;

// vpdpbusd sums four products in 32 bits: exact for all codes.
template <int P, int V>
void dot(const Step& s) {
  __m512i total[P][V];
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < V; ++v)
      total[p][v] = s.first ? _mm512_setzero_si512()
                            : _mm512_loadu_si512(s.sums + p * s.sum_stride + v * kLanes);
  for (int t = 0; t < s.taps; ++t) {
    const uint8_t* row[P];
    for (int p = 0; p < P; ++p) row[p] = s.rows[p * s.row_stride + t] + s.offset;
    const uint8_t* weights = s.weights + t * s.tap_stride;
    for (int g = 0; g < s.groups; ++g) {
      __m512i w[V];
      for (int v = 0; v < V; ++v) w[v] = _mm512_loadu_si512(weights + (g * V + v) * 64);
      for (int p = 0; p < P; ++p) {
        int32_t four;
        std::memcpy(&four, row[p] + g * 4, 4);
        const __m512i a = _mm512_set1_epi32(four);
        for (int v = 0; v < V; ++v) total[p][v] = _mm512_dpbusd_epi32(total[p][v], a, w[v]);
      }
    }
  }
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < V; ++v)
      _mm512_storeu_si512(s.sums + p * s.sum_stride + v * kLanes, total[p][v]);
}

#define ROW(p) {dot<p, 1>, dot<p, 2>}
const DotKernel kDot = {"dot_vnni", Prepare::kRaw, Layout::kDot4, kLanes, 64, kPixels, 0,
                        {ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), ROW(8)}};

void prepare(Prepare kind, const uint8_t* codes, int channels, uint8_t* out, int32_t* total) {
  avx2_backend()->prepare(kind, codes, channels, out, total);
}

void finish(const Finish& f, const int32_t* sums, int32_t pixel_term, int first, int count,
            void* out) {
  if (f.kind != LOWBIT_CODES ||
      (f.function != LOWBIT_IDENTITY && f.function != LOWBIT_HARD_SWISH)) {
    finish_plain(f, sums, pixel_term, first, count, out);
    return;
  }
  uint8_t* to = static_cast<uint8_t*>(out) + first;
  const __m512 low = _mm512_set1_ps(f.low), high = _mm512_set1_ps(f.high);
  const __m512 post = _mm512_set1_ps(f.post), sixth = _mm512_set1_ps(1.0f / 6.0f);
  const __m512 half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(1.0f);
  const __m512i term = _mm512_set1_epi32(pixel_term), zero = _mm512_set1_epi32(f.zero_point);
  const __m512i times = _mm512_set1_epi32(f.coefficient);
  for (int n = 0; n < count; n += 16) {
    // The arrays are padded, so a whole vector may be read; only what is left is written.
    __m512i total = _mm512_loadu_si512(sums + n);
    if (f.coefficient != 1) total = _mm512_mullo_epi32(total, times);
    total = _mm512_add_epi32(
        _mm512_add_epi32(total, _mm512_loadu_si512(f.correction + first + n)), term);
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(total), _mm512_loadu_ps(f.multiplier + first + n));
    v = _mm512_add_ps(v, _mm512_loadu_ps(f.bias + first + n));
    if (f.function == LOWBIT_HARD_SWISH) {
      const __m512 gate = _mm512_min_ps(
          _mm512_max_ps(_mm512_add_ps(_mm512_mul_ps(v, sixth), half), _mm512_setzero_ps()), one);
      v = _mm512_mul_ps(_mm512_mul_ps(v, gate), post);
    }
    v = _mm512_min_ps(_mm512_max_ps(v, low), high);
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(v), zero));
    const int left = count - n;
    if (left >= 16)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + n), bytes);
    else
      _mm_mask_storeu_epi8(to + n, static_cast<__mmask16>((1u << left) - 1), bytes);
  }
}

const Backend* make() {
  static Backend backend = {"avx512vnni", {&kDot}, {}, prepare, finish,
                            {quantise, sum, product, rescale, column_sums, finish_mean, maximum}};
  return &backend;
}

}  // namespace

const Backend* avx512_backend() {
  const bool can = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vnni") && avx2_backend() != nullptr;
  return can ? make() : nullptr;
}

}  // namespace lowbit

#else

namespace lowbit {
const Backend* avx512_backend() { return nullptr; }
}  // namespace lowbit

#endif
