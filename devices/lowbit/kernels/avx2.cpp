// Kernels for x86-64 with AVX2. Compiled for it; called only where the processor has it.
#include "internal.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "lowbit.h"

namespace lowbit {
namespace {

#include "elementwise.inc"

using V32 = __m256i;

inline V32 load(const void* p) { return _mm256_loadu_si256(static_cast<const V32*>(p)); }
inline void store(void* p, V32 v) { _mm256_storeu_si256(static_cast<V32*>(p), v); }
inline V32 table_at(const uint8_t* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline V32 four_at(const uint8_t* p) {
  int32_t v;
  std::memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}
inline void put(int32_t* to, V32 v, bool first) {
  store(to, first ? v : _mm256_add_epi32(v, load(to)));
}
inline V32 low16(V32 v) { return _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v)); }
inline V32 high16(V32 v) { return _mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1)); }

// Grouped tables. `kDepth` lookups of a byte are summed before they could pass 255, then
// vpmaddubsw weighs the planes of an output, which lie in adjacent bytes, and widens.
template <int P, int V, int kPlanes, int kDepth, bool kTwo>
void lookup(const Step& s) {
  constexpr int kHalves = kTwo ? 2 : 1;         // nibbles of the activations
  constexpr int kWide = kPlanes == 1 ? 2 : 1;   // even and odd outputs apart
  constexpr int kBytes = kTwo ? 32 : 16;
  V32 wide[P][V][kHalves][kWide];
  for (auto& a : wide)
    for (auto& b : a)
      for (auto& c : b)
        for (auto& d : c) d = _mm256_setzero_si256();
  int32_t four;
  std::memcpy(&four, s.coefficients, 4);
  const V32 weigh = _mm256_set1_epi32(four);
  const V32 even = _mm256_set1_epi16(0x0001);

  const auto widen = [&](V32 (&sum)[P][V][kHalves]) {
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < V; ++v)
        for (int h = 0; h < kHalves; ++h) {
          auto& w = wide[p][v][h];
          if constexpr (kPlanes == 1) {
            w[0] = _mm256_add_epi16(w[0], _mm256_maddubs_epi16(sum[p][v][h], even));
            w[1] = _mm256_add_epi16(w[1], _mm256_srli_epi16(sum[p][v][h], 8));
          } else {
            w[0] = _mm256_add_epi16(w[0], _mm256_maddubs_epi16(sum[p][v][h], weigh));
          }
        }
  };

  for (int t = 0; t < s.taps; ++t) {
    const uint8_t* table[P];
    for (int p = 0; p < P; ++p) table[p] = s.rows[p * s.row_stride + t] + s.offset;
    const uint8_t* index = s.weights + t * s.tap_stride;
    const auto group = [&](V32 (&sum)[P][V][kHalves], int g, bool begin) {
      V32 i[V];
      for (int v = 0; v < V; ++v) i[v] = load(index + (g * V + v) * 32);
      for (int p = 0; p < P; ++p)
        for (int h = 0; h < kHalves; ++h) {
          const V32 entries = table_at(table[p] + g * kBytes + 16 * h);
          for (int v = 0; v < V; ++v) {
            const V32 found = _mm256_shuffle_epi8(entries, i[v]);
            sum[p][v][h] = begin ? found : _mm256_add_epi8(sum[p][v][h], found);
          }
        }
    };
    int g = 0;
    for (; g + kDepth <= s.groups; g += kDepth) {
      V32 sum[P][V][kHalves];
      group(sum, g, true);
#pragma GCC unroll 8
      for (int d = 1; d < kDepth; ++d) group(sum, g + d, false);
      widen(sum);
    }
    if (kDepth > 1 && g < s.groups) {
      V32 sum[P][V][kHalves];
      group(sum, g, true);
      for (++g; g < s.groups; ++g) group(sum, g, false);
      widen(sum);
    }
  }

  for (int p = 0; p < P; ++p)
    for (int v = 0; v < V; ++v) {
      int32_t* to = s.sums + p * s.sum_stride + v * (32 / kPlanes);
      if constexpr (kPlanes == 4) {
        const V32 one = _mm256_set1_epi16(1);
        V32 total = _mm256_madd_epi16(wide[p][v][0][0], one);
        if constexpr (kTwo)
          total = _mm256_add_epi32(
              total, _mm256_slli_epi32(_mm256_madd_epi16(wide[p][v][kHalves - 1][0], one), 4));
        put(to, total, s.first);
      } else {
        for (int w = 0; w < kWide; ++w) {
          V32 low = low16(wide[p][v][0][w]), high = high16(wide[p][v][0][w]);
          if constexpr (kTwo) {
            const V32 upper = wide[p][v][kHalves - 1][w];
            low = _mm256_add_epi32(low, _mm256_slli_epi32(low16(upper), 4));
            high = _mm256_add_epi32(high, _mm256_slli_epi32(high16(upper), 4));
          }
          put(to + 16 * w, low, s.first);
          put(to + 16 * w + 8, high, s.first);
        }
      }
    }
}

// Products by vpmaddubsw, summed in 16 bits for `depth` groups: exact, as `depth` is chosen from
// the actual weights.
template <int P, int V>
void multiply(const Step& s) {
  if (s.first)
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < V; ++v)
        store(s.sums + p * s.sum_stride + v * 8, _mm256_setzero_si256());
  V32 wide[P][V];
  for (auto& a : wide)
    for (auto& b : a) b = _mm256_setzero_si256();
  const V32 one = _mm256_set1_epi16(1);
  const auto flush = [&] {
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < V; ++v) {
        int32_t* to = s.sums + p * s.sum_stride + v * 8;
        store(to, _mm256_add_epi32(load(to), _mm256_madd_epi16(wide[p][v], one)));
        wide[p][v] = _mm256_setzero_si256();
      }
  };
  int left = s.depth;
  for (int t = 0; t < s.taps; ++t) {
    const uint8_t* row[P];
    for (int p = 0; p < P; ++p) row[p] = s.rows[p * s.row_stride + t] + s.offset;
    const uint8_t* weights = s.weights + t * s.tap_stride;
    for (int g = 0; g < s.groups;) {
      const int end = g + (s.groups - g < left ? s.groups - g : left);
      left -= end - g;
      for (; g < end; ++g) {
        V32 w[V];
        for (int v = 0; v < V; ++v) w[v] = load(weights + (g * V + v) * 32);
        for (int p = 0; p < P; ++p) {
          const V32 a = four_at(row[p] + g * 4);
          for (int v = 0; v < V; ++v)
            wide[p][v] = _mm256_add_epi16(wide[p][v], _mm256_maddubs_epi16(a, w[v]));
        }
      }
      if (left == 0) {
        flush();
        left = s.depth;
      }
    }
  }
  if (left != s.depth) flush();
}

// The same where two products just fit 16 bits: widened at once.
template <int P, int V>
void multiply_widen(const Step& s) {
  V32 total[P][V];
  for (auto& a : total)
    for (auto& b : a) b = _mm256_setzero_si256();
  const V32 one = _mm256_set1_epi16(1);
  for (int t = 0; t < s.taps; ++t) {
    const uint8_t* row[P];
    for (int p = 0; p < P; ++p) row[p] = s.rows[p * s.row_stride + t] + s.offset;
    const uint8_t* weights = s.weights + t * s.tap_stride;
    for (int g = 0; g < s.groups; ++g) {
      V32 w[V];
      for (int v = 0; v < V; ++v) w[v] = load(weights + (g * V + v) * 32);
      for (int p = 0; p < P; ++p) {
        const V32 a = four_at(row[p] + g * 4);
        for (int v = 0; v < V; ++v)
          total[p][v] = _mm256_add_epi32(
              total[p][v], _mm256_madd_epi16(_mm256_maddubs_epi16(a, w[v]), one));
      }
    }
  }
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < V; ++v) put(s.sums + p * s.sum_stride + v * 8, total[p][v], s.first);
}

// 16-bit numbers: exact for any int8 weights and uint8 activations.
template <int P, int V>
void multiply_wide(const Step& s) {
  V32 total[P][V];
  for (auto& a : total)
    for (auto& b : a) b = _mm256_setzero_si256();
  for (int t = 0; t < s.taps; ++t) {
    const uint8_t* row[P];
    for (int p = 0; p < P; ++p) row[p] = s.rows[p * s.row_stride + t] + s.offset;
    const uint8_t* weights = s.weights + t * s.tap_stride;
    for (int g = 0; g < s.groups; ++g)
      for (int h = 0; h < 2; ++h) {
        V32 w[V];
        for (int v = 0; v < V; ++v) w[v] = load(weights + ((g * V + v) * 2 + h) * 32);
        for (int p = 0; p < P; ++p) {
          const V32 a = four_at(row[p] + g * 8 + h * 4);
          for (int v = 0; v < V; ++v)
            total[p][v] = _mm256_add_epi32(total[p][v], _mm256_madd_epi16(a, w[v]));
        }
      }
  }
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < V; ++v) put(s.sums + p * s.sum_stride + v * 8, total[p][v], s.first);
}

#define TILES(f, ...)                                           \
  {{f<1, 1, ##__VA_ARGS__>, f<1, 2, ##__VA_ARGS__>},            \
   {f<2, 1, ##__VA_ARGS__>, f<2, 2, ##__VA_ARGS__>}}
#define TILES1(f, ...) {{f<1, 1, ##__VA_ARGS__>, f<1, 2, ##__VA_ARGS__>}}
#define PLAIN_TILES(f)                                                            \
  {{f<1, 1>, f<1, 2>}, {f<2, 1>, f<2, 2>}, {f<3, 1>, f<3, 2>}, {f<4, 1>, f<4, 2>}}
#define TABLES(name, planes, lanes, depth, pixels)                                             \
  {name, Prepare::kTable, Layout::kPlane##planes, lanes, 32, pixels, depth,                    \
   TILES(lookup, planes, depth, false)}

// By the most lookups whose sum fits a byte: 8 for codes to 7, 4 to 15, 2 to 31, 1 to 63.
const DotKernel kDot[] = {
    {"multiply_avx2", Prepare::kRaw, Layout::kDot4, 8, 32, 4, 2, PLAIN_TILES(multiply)},
    {"multiply_widen_avx2", Prepare::kRaw, Layout::kDot4, 8, 32, 4, 1, PLAIN_TILES(multiply_widen)},
    {"multiply_wide_avx2", Prepare::kWide, Layout::kDot2, 8, 64, 4, 0, PLAIN_TILES(multiply_wide)},
    TABLES("tables1x8_avx2", 1, 32, 8, 2), TABLES("tables1x4_avx2", 1, 32, 4, 2),
    TABLES("tables1x2_avx2", 1, 32, 2, 2), TABLES("tables1x1_avx2", 1, 32, 1, 2),
    TABLES("tables2x8_avx2", 2, 16, 8, 2), TABLES("tables2x4_avx2", 2, 16, 4, 2),
    TABLES("tables2x2_avx2", 2, 16, 2, 2), TABLES("tables2x1_avx2", 2, 16, 1, 2),
    TABLES("tables4x8_avx2", 4, 8, 8, 2),  TABLES("tables4x4_avx2", 4, 8, 4, 2),
    TABLES("tables4x2_avx2", 4, 8, 2, 2),  TABLES("tables4x1_avx2", 4, 8, 1, 2),
    {"nibble_tables1_avx2", Prepare::kTables, Layout::kPlane1, 32, 32, 1, 0,
     TILES1(lookup, 1, 4, true)},
    {"nibble_tables2_avx2", Prepare::kTables, Layout::kPlane2, 16, 32, 1, 0,
     TILES1(lookup, 2, 4, true)},
    {"nibble_tables4_avx2", Prepare::kTables, Layout::kPlane4, 8, 32, 1, 0,
     TILES1(lookup, 4, 4, true)},
};

// kPick[j][i] picks code j where bit j of i is set, else zero.
#define Z 128
alignas(16) const uint8_t kPick[4][16] = {{Z, 0, Z, 0, Z, 0, Z, 0, Z, 0, Z, 0, Z, 0, Z, 0},
                                          {Z, Z, 1, 1, Z, Z, 1, 1, Z, Z, 1, 1, Z, Z, 1, 1},
                                          {Z, Z, Z, Z, 2, 2, 2, 2, Z, Z, Z, Z, 2, 2, 2, 2},
                                          {Z, Z, Z, Z, Z, Z, Z, Z, 3, 3, 3, 3, 3, 3, 3, 3}};
#undef Z

// Entry i of a group's table sums the activations whose bit of i is set: one shuffle each.
void prepare(Prepare kind, const uint8_t* codes, int channels, uint8_t* out, int32_t* total) {
  if (total) {
    V32 sums = _mm256_setzero_si256();
    int c = 0;
    for (; c + 32 <= channels; c += 32)
      sums = _mm256_add_epi64(sums, _mm256_sad_epu8(load(codes + c), _mm256_setzero_si256()));
    int64_t parts[4];
    store(parts, sums);
    *total = static_cast<int32_t>(parts[0] + parts[1] + parts[2] + parts[3]);
    for (; c < channels; ++c) *total += codes[c];
  }
  // 16 channels at a time; the tail is padded with zeros.
  const auto each = [&](auto work) {
    int c = 0;
    for (; c + 16 <= channels; c += 16)
      work(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + c)), 4);
    if (c < channels) {
      uint8_t rest[16] = {};
      std::memcpy(rest, codes + c, channels - c);
      work(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rest)), (channels - c + 3) / 4);
    }
  };
  if (kind == Prepare::kRaw) {
    each([&](__m128i q, int groups) {
      std::memcpy(out, &q, 4 * groups);
      out += 4 * groups;
    });
    return;
  }
  if (kind == Prepare::kWide) {
    each([&](__m128i q, int groups) {
      const V32 wide = _mm256_cvtepu8_epi16(q);
      std::memcpy(out, &wide, 8 * groups);
      out += 8 * groups;
    });
    return;
  }
  V32 control[4];
  for (int j = 0; j < 4; ++j) control[j] = table_at(kPick[j]);
  const auto entries = [&](V32 q) {
    return _mm256_add_epi8(
        _mm256_add_epi8(_mm256_shuffle_epi8(q, control[0]), _mm256_shuffle_epi8(q, control[1])),
        _mm256_add_epi8(_mm256_shuffle_epi8(q, control[2]), _mm256_shuffle_epi8(q, control[3])));
  };
  if (kind == Prepare::kTable) {
    each([&](__m128i q, int groups) {
      // Two groups at once, one in each half.
      const V32 both = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_si128(q, 4), 1);
      const V32 first = entries(both);
      if (groups == 1) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(first));
        out += 16;
        return;
      }
      store(out, first);
      out += 32;
      if (groups == 2) return;
      const V32 second = entries(_mm256_srli_si256(both, 8));
      if (groups == 3) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(second));
        out += 16;
        return;
      }
      store(out, second);
      out += 32;
    });
    return;
  }
  const __m128i nibble = _mm_set1_epi8(15);
  each([&](__m128i q, int groups) {
    V32 halves = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_and_si128(q, nibble)),
                                         _mm_and_si128(_mm_srli_epi16(q, 4), nibble), 1);
    for (int g = 0; g < groups; ++g, out += 32) {
      store(out, entries(halves));
      halves = _mm256_srli_si256(halves, 4);
    }
  });
}

inline void store_part(uint8_t* to, __m128i bytes, int count) {
  if (count >= 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
    return;
  }
  if (count & 8) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes);
    bytes = _mm_srli_si128(bytes, 8);
    to += 8;
  }
  if (count & 4) {
    const int32_t four = _mm_cvtsi128_si32(bytes);
    std::memcpy(to, &four, 4);
    bytes = _mm_srli_si128(bytes, 4);
    to += 4;
  }
  int32_t rest = _mm_cvtsi128_si32(bytes);
  for (int i = 0; i < (count & 3); ++i, rest >>= 8) to[i] = static_cast<uint8_t>(rest);
}

// kForm 0: no factors; 1: factors; 2: also a coefficient and terms.
template <bool kSwish, int kForm>
void finish_codes(const Finish& f, const int32_t* sums, size_t sum_stride, const int32_t* terms,
                  int pixels, int first, int count, uint8_t* out, size_t out_stride) {
  const __m256 low = _mm256_set1_ps(f.low), high = _mm256_set1_ps(f.high);
  const __m256 scale = _mm256_set1_ps(f.scale), sixth = _mm256_set1_ps(1.0f / 6.0f);
  const __m256 half = _mm256_set1_ps(0.5f), one = _mm256_set1_ps(1.0f);
  const V32 zero = _mm256_set1_epi16(static_cast<short>(f.zero_point));
  const V32 times = _mm256_set1_epi32(f.coefficient);
  // Sixteen outputs of all pixels at a time: their constants stay in registers.
  for (int n = 0; n < count; n += 16) {
    const V32 bias[2] = {load(f.bias + first + n), load(f.bias + first + n + 8)};
    const V32 factor[2] = {load(f.factor + first + n), load(f.factor + first + n + 8)};
    const __m256 multiplier[2] = {_mm256_loadu_ps(f.multiplier + first + n),
                                  _mm256_loadu_ps(f.multiplier + first + n + 8)};
    const int32_t* from = sums + n;
    uint8_t* to = out + first + n;
    for (int p = 0; p < pixels; ++p, from += sum_stride, to += out_stride) {
      V32 whole[2];
      for (int i = 0; i < 2; ++i) {
        V32 total = load(from + 8 * i);
        if (kForm == 2) {
          total = _mm256_mullo_epi32(total, times);
          if (terms) total = _mm256_add_epi32(total, _mm256_set1_epi32(terms[p]));
        }
        if (kForm) total = _mm256_mullo_epi32(total, factor[i]);
        total = _mm256_add_epi32(total, bias[i]);
        __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(total), multiplier[i]);
        if (kSwish) {
          const __m256 gate = _mm256_min_ps(
              _mm256_max_ps(_mm256_add_ps(_mm256_mul_ps(v, sixth), half), _mm256_setzero_ps()),
              one);
          v = _mm256_div_ps(_mm256_mul_ps(v, gate), scale);
        }
        whole[i] = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, low), high));
      }
      const V32 words = _mm256_add_epi16(_mm256_packs_epi32(whole[0], whole[1]), zero);
      const V32 bytes = _mm256_packus_epi16(words, words);  // 0-3 8-11 .. | 4-7 12-15 ..
      const __m128i ordered = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes),
                                                 _mm256_extracti128_si256(bytes, 1));
      store_part(to, ordered, count - n);
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
  const int form = f.coefficient != 1 || terms ? 2 : f.factors ? 1 : 0;
  constexpr decltype(&finish_codes<false, 0>) kRuns[2][3] = {
      {finish_codes<false, 0>, finish_codes<false, 1>, finish_codes<false, 2>},
      {finish_codes<true, 0>, finish_codes<true, 1>, finish_codes<true, 2>}};
  const auto run = kRuns[swish][form];
  run(f, sums, sum_stride, terms, pixels, first, count, static_cast<uint8_t*>(out), out_stride);
}

// Two taps interleaved: vpmaddubsw sums both; all sums fit 16 bits.
void depthwise_narrow(const uint8_t* const* rows, int taps, int channels, const uint8_t* weights,
                      int32_t* sums) {
  for (int c = 0; c < channels; c += 32) {
    V32 low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
    for (int t = 0; t < taps; t += 2, weights += 64) {
      const V32 a = load(rows[t] + c), b = load(rows[t + 1 < taps ? t + 1 : t] + c);
      low = _mm256_add_epi16(
          low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), load(weights)));
      high = _mm256_add_epi16(
          high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), load(weights + 32)));
    }
    store(sums + c, low16(low));
    store(sums + c + 8, low16(high));
    store(sums + c + 16, high16(low));
    store(sums + c + 24, high16(high));
  }
}

void depthwise_wide(const uint8_t* const* rows, int taps, int channels, const uint8_t* weights,
                    int32_t* sums) {
  const auto wide = [](const uint8_t* p) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  };
  for (int c = 0; c < channels; c += 16) {
    V32 low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
    for (int t = 0; t < taps; t += 2, weights += 64) {
      const V32 a = wide(rows[t] + c), b = wide(rows[t + 1 < taps ? t + 1 : t] + c);
      low = _mm256_add_epi32(low,
                             _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), load(weights)));
      high = _mm256_add_epi32(high,
                              _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), load(weights + 32)));
    }
    store(sums + c, _mm256_permute2x128_si256(low, high, 0x20));
    store(sums + c + 8, _mm256_permute2x128_si256(low, high, 0x31));
  }
}

const DepthwiseKernel kDepthwise[] = {{"depthwise_narrow_avx2", 32, true, depthwise_narrow},
                                      {"depthwise_wide_avx2", 16, false, depthwise_wide}};

Backend make() {
  Backend backend = {"avx2", {}, {}, prepare, finish,
                     {quantise, sum, product, rescale, column_sums, finish_mean, maximum}};
  for (const DotKernel& k : kDot) backend.dot.push_back(&k);
  for (const DepthwiseKernel& k : kDepthwise) backend.depthwise.push_back(&k);
  return backend;
}

}  // namespace

const Backend* avx2_backend() {
  static const Backend backend = make();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &backend : nullptr;
}

}  // namespace lowbit

#else

namespace lowbit {
const Backend* avx2_backend() { return nullptr; }
}  // namespace lowbit

#endif
