// Kernels for x86-64 with AVX-512 and its dot product of bytes (VNNI).
#include "internal.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "lowbit.h"

namespace lowbit {

void grouped_avx512(const GroupedStep&);

namespace {

#include "elementwise.inc"
#include "sweep.inc"
#include "fields_avx2.inc"

constexpr int kLanes = 16;

// vpdpbusd sums four products in 32 bits: exact for all codes.
template <int P, int V>
inline void dot_tile(const Step& s) {
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

template <int V>
void dot(const Step& s) {
  Step step = s;
  sweep<kPixels>(step, [](auto p, const Step& tile) { dot_tile<p, V>(tile); });
}

// The same in the layout of eight outputs, for one row of weights as they are kept.
template <int P, int V>
inline void dot_half_tile(const Step& s) {
  __m256i total[P][V];
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < V; ++v) {
      const void* from = s.sums + p * s.sum_stride + v * 8;
      total[p][v] = s.first ? _mm256_setzero_si256() : _mm256_loadu_si256(static_cast<const __m256i*>(from));
    }
  for (int t = 0; t < s.taps; ++t) {
    const uint8_t* weights = s.weights + t * s.tap_stride;
    for (int g = 0; g < s.groups; ++g)
      for (int v = 0; v < V; ++v) {
        const void* at = weights + (g * V + v) * 32;
        const __m256i w = _mm256_loadu_si256(static_cast<const __m256i*>(at));
        for (int p = 0; p < P; ++p)
          total[p][v] = _mm256_dpbusd_epi32(
              total[p][v], four_codes(s.rows[p * s.row_stride + t] + s.offset + g * 4), w);
      }
  }
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < V; ++v) {
      void* to = s.sums + p * s.sum_stride + v * 8;
      _mm256_storeu_si256(static_cast<__m256i*>(to), total[p][v]);
    }
}

template <int V>
void dot_half(const Step& s) {
  Step step = s;
  sweep<4>(step, [](auto p, const Step& tile) { dot_half_tile<p, V>(tile); });
}

const DotKernel kDot[] = {
    {"dot_vnni", Prepare::kRaw, Layout::kDot4, kLanes, 64, 0, {dot<1>, dot<2>}, {}},
    {"rows_vnni", Prepare::kRaw, Layout::kDot4, 8, 32, 0, {dot_half<1>, dot_half<2>}, PACKED_ROWS},
};

void prepare(Prepare kind, const uint8_t* codes, int channels, uint8_t* out, int32_t* total) {
  avx2_backend()->prepare(kind, codes, channels, out, total);
}

// Two vectors of fields at a time.
template <int kBits>
void unpack_pairs(const Field& f, const uint8_t* from, uint8_t* to, size_t bytes) {
  constexpr int kFields = kBits == 3 ? 8 : 8 / kBits, kApart = kBits == 3 ? 2 : kBits;
  const __m512i low = _mm512_set1_epi8(f.low), step = _mm512_set1_epi8(static_cast<char>(f.step));
  const __m512i mask = _mm512_set1_epi8((1 << kApart) - 1), one = _mm512_set1_epi8(1);
  const auto both = [](const uint8_t* p) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  };
  const auto shift = [](__m512i v, int low_half, int high_half) {
    return _mm512_srlv_epi16(v, _mm512_inserti64x4(_mm512_set1_epi16(low_half),
                                                   _mm256_set1_epi16(high_half), 1));
  };
  for (const uint8_t* const end = to + bytes; to < end; from += 4 * kFields * kBits)
#pragma GCC unroll 4
    for (int j = 0; j < kFields; j += 2, to += 64) {
      const int at = j * kApart % 8;
      __m512i field =
          _mm512_and_si512(shift(both(from + j * kApart / 8 * 32), at, at + kApart), mask);
      if constexpr (kBits == 3) {
        const __m512i upper = _mm512_and_si512(shift(both(from + 64), j, j + 1), one);
        field = _mm512_or_si512(field, _mm512_slli_epi16(upper, 2));
      }
      if constexpr (kBits == 1)
        field = _mm512_and_si512(_mm512_sub_epi8(_mm512_setzero_si512(), field), step);
      _mm512_storeu_si512(to, _mm512_add_epi8(field, low));
    }
}

void unpack_wide(const Field& f, const uint8_t* from, uint8_t* to, size_t bytes) {
  constexpr UnpackKernel kRun[] = {unpack_pairs<1>, unpack_pairs<2>, unpack_pairs<3>, unpack_pairs<4>};
  kRun[f.bits - 1](f, from, to, bytes);
}

template <bool kSwish>
void finish_codes(const Finish& f, const int32_t* sums, size_t sum_stride, const int32_t* terms,
                  int pixels, int first, int count, uint8_t* out, size_t out_stride) {
  const __m512 low = _mm512_set1_ps(f.low), high = _mm512_set1_ps(f.high);
  const __m512 scale = _mm512_set1_ps(f.scale), sixth = _mm512_set1_ps(1.0f / 6.0f);
  const __m512 half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(1.0f);
  const __m512i zero = _mm512_set1_epi32(f.zero_point);
  const __m512i times = _mm512_set1_epi32(f.coefficient);
  for (int n = 0; n < count; n += 16) {
    const int left = count - n;
    const __mmask16 mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1u << left) - 1);
    const __m512i factor = _mm512_loadu_si512(f.factor + first + n);
    const __m512i bias = _mm512_loadu_si512(f.bias + first + n);
    const __m512 multiplier = _mm512_loadu_ps(f.multiplier + first + n);
    const int32_t* from = sums + n;
    uint8_t* to = out + first + n;
    for (int p = 0; p < pixels; ++p, from += sum_stride, to += out_stride) {
      __m512i total = _mm512_loadu_si512(from);
      if (f.coefficient != 1) total = _mm512_mullo_epi32(total, times);
      if (terms) total = _mm512_add_epi32(total, _mm512_set1_epi32(terms[p]));
      if (f.factors) total = _mm512_mullo_epi32(total, factor);
      total = _mm512_add_epi32(total, bias);
      __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(total), multiplier);
      if (kSwish) {
        const __m512 gate = _mm512_min_ps(
            _mm512_max_ps(_mm512_add_ps(_mm512_mul_ps(v, sixth), half), _mm512_setzero_ps()), one);
        v = _mm512_div_ps(_mm512_mul_ps(v, gate), scale);
      }
      v = _mm512_min_ps(_mm512_max_ps(v, low), high);
      _mm_mask_storeu_epi8(
          to, mask, _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(v), zero)));
    }
  }
}

void finish(const Finish& f, const int32_t* sums, size_t sum_stride, const int32_t* terms,
            int pixels, int first, int count, void* out, size_t out_stride) {
  const bool swish = f.function == LOWBIT_HARD_SWISH;
  if (f.kind != LOWBIT_CODES || (f.function != LOWBIT_IDENTITY && !swish)) {
    finish_plain(f, sums, sum_stride, terms, pixels, first, count, out, out_stride);
    return;
  }
  const auto run = swish ? finish_codes<true> : finish_codes<false>;
  run(f, sums, sum_stride, terms, pixels, first, count, static_cast<uint8_t*>(out), out_stride);
}

}  // namespace

const Backend* avx512_backend() {
  static Backend backend = {"avx512vnni", {&kDot[0], &kDot[1]}, {}, prepare, finish, unpack_wide,
                            grouped_avx512, kMostBlocks, quantise_row, finish_rows,
                            {quantise, sum, product, rescale, column_sums, finish_mean, maximum,
                             rows, pointwise, attend}};
  return &backend;
}

}  // namespace lowbit

#else

namespace lowbit {
const Backend* avx512_backend() { return nullptr; }
}  // namespace lowbit

#endif
