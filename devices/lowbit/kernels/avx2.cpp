// Kernels for x86-64 with AVX2. Compiled for it; called only where the processor has it.
#include "internal.h"

#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC's expression replacement moves loads ahead of the sums they belong to; the tiles of the tables
// then need twice the registers there are.
#pragma GCC optimize("no-tree-ter")
#endif
#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "lowbit.h"

namespace lowbit {

void grouped_avx2(const GroupedStep&);

namespace {

#include "elementwise.inc"
#include "sweep.inc"
#include "fields_avx2.inc"

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
// `kPacked`: two indices lie in a byte, those of vectors 0 and 1.
template <int P, int V, int kPlanes, int kDepth, bool kTwo, bool kPacked = false>
inline void lookup_tile(const Step& s) {
  constexpr int kHalves = kTwo ? 2 : 1;         // nibbles of the activations
  constexpr int kWide = kPlanes == 1 ? 2 : 1;   // of one plane: both bytes as a word, the odd one
  constexpr int kBytes = kTwo ? 32 : 16;
  V32 wide[P][V][kHalves][kWide];
  for (auto& a : wide)
    for (auto& b : a)
      for (auto& c : b)
        for (auto& d : c) d = _mm256_setzero_si256();
  int32_t four;
  std::memcpy(&four, s.coefficients, 4);
  const V32 weigh = _mm256_set1_epi32(four);

  const auto widen = [&](V32 (&sum)[P][V][kHalves]) {
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < V; ++v)
        for (int h = 0; h < kHalves; ++h) {
          auto& w = wide[p][v][h];
          if constexpr (kPlanes == 1) {
            w[0] = _mm256_add_epi16(w[0], sum[p][v][h]);
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
      if constexpr (kPacked) {
        static_assert(V == 2, "a byte holds the indices of two vectors");
        const V32 both = load(index + g * 32), nibble = _mm256_set1_epi8(15);
        _mm_prefetch(reinterpret_cast<const char*>(index + g * 32 + kAhead), _MM_HINT_T0);
        i[0] = both & nibble;
        i[1] = _mm256_srli_epi16(both, 4) & nibble;
      } else {
        for (int v = 0; v < V; ++v) i[v] = load(index + (g * V + v) * 32);
      }
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
        if constexpr (kPlanes == 1)  // words less their odd bytes are the even outputs, modulo 2^16
          for (auto& h : wide[p][v]) h[0] = _mm256_sub_epi16(h[0], _mm256_slli_epi16(h[1], 8));
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

template <int V, int kPlanes, int kDepth>
void lookup(const Step& s) {
  Step step = s;
  sweep<2>(step, [](auto p, const Step& tile) { lookup_tile<p, V, kPlanes, kDepth, false>(tile); });
}
template <int V, int kPlanes>
void lookup_nibbles(const Step& s) {
  Step step = s;
  sweep<1>(step, [](auto p, const Step& tile) { lookup_tile<p, V, kPlanes, 4, true>(tile); });
}

template <int kPlanes, int kDepth, bool kTwo>
void lookup_packed(const Step& s) {
  lookup_tile<1, 2, kPlanes, kDepth, kTwo, true>(s);
}
#define PACKED_TABLES(planes, depth, two) \
  {nullptr, nullptr, nullptr, nullptr, lookup_packed<planes, depth, two>}

// Products by vpmaddubsw, summed in 16 bits for `depth` groups: exact, as `depth` is chosen from
// the actual weights.
template <int P, int V>
inline void multiply_tile(const Step& s) {
  V32 wide[P][V];
  for (auto& a : wide)
    for (auto& b : a) b = _mm256_setzero_si256();
  const V32 one = _mm256_set1_epi16(1);
  bool first = s.first;
  const auto flush = [&] {
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < V; ++v) {
        put(s.sums + p * s.sum_stride + v * 8, _mm256_madd_epi16(wide[p][v], one), first);
        wide[p][v] = _mm256_setzero_si256();
      }
    first = false;
  };
  int left = s.depth;
  for (int t = 0; t < s.taps; ++t) {
    const uint8_t* row[P];
    for (int p = 0; p < P; ++p) row[p] = s.rows[p * s.row_stride + t] + s.offset;
    const uint8_t* weights = s.weights + t * s.tap_stride;
    for (int g = 0; g < s.groups;) {
      if (left == 0) {
        flush();
        left = s.depth;
      }
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
    }
  }
  flush();
}
template <int V>
void multiply(const Step& s) {
  Step step = s;
  sweep<4>(step, [](auto p, const Step& tile) { multiply_tile<p, V>(tile); });
}

// The same where two products just fit 16 bits: widened at once.
template <int P, int V>
inline void multiply_widen_tile(const Step& s) {
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
template <int V>
void multiply_widen(const Step& s) {
  Step step = s;
  sweep<4>(step, [](auto p, const Step& tile) { multiply_widen_tile<p, V>(tile); });
}

// 16-bit numbers: exact for any int8 weights and uint8 activations.
template <int P, int V>
inline void multiply_wide_tile(const Step& s) {
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
template <int V>
void multiply_wide(const Step& s) {
  Step step = s;
  sweep<4>(step, [](auto p, const Step& tile) { multiply_wide_tile<p, V>(tile); });
}

#define TILES(f, ...) {f<1, ##__VA_ARGS__>, f<2, ##__VA_ARGS__>}
#define TABLES(name, planes, lanes, depth)                                     \
  {name, Prepare::kTable, Layout::kPlane##planes, lanes, 32, depth,            \
   TILES(lookup, planes, depth), PACKED_TABLES(planes, depth, false)}

// By the most lookups whose sum fits a byte: 8 for codes to 7, 4 to 15, 2 to 31, 1 to 63.
const DotKernel kDot[] = {
    {"multiply_avx2", Prepare::kRaw, Layout::kDot4, 8, 32, 2, TILES(multiply), PACKED_ROWS},
    {"multiply_widen_avx2", Prepare::kRaw, Layout::kDot4, 8, 32, 1, TILES(multiply_widen), PACKED_ROWS},
    {"multiply_wide_avx2", Prepare::kWide, Layout::kDot2, 8, 64, 0, TILES(multiply_wide), {}},
    TABLES("tables1x8_avx2", 1, 32, 8), TABLES("tables1x4_avx2", 1, 32, 4),
    TABLES("tables1x2_avx2", 1, 32, 2), TABLES("tables1x1_avx2", 1, 32, 1),
    TABLES("tables2x8_avx2", 2, 16, 8), TABLES("tables2x4_avx2", 2, 16, 4),
    TABLES("tables2x2_avx2", 2, 16, 2), TABLES("tables2x1_avx2", 2, 16, 1),
    TABLES("tables4x8_avx2", 4, 8, 8),  TABLES("tables4x4_avx2", 4, 8, 4),
    TABLES("tables4x2_avx2", 4, 8, 2),  TABLES("tables4x1_avx2", 4, 8, 1),
    {"nibble_tables1_avx2", Prepare::kTables, Layout::kPlane1, 32, 32, 0, TILES(lookup_nibbles, 1),
     PACKED_TABLES(1, 4, true)},
    {"nibble_tables2_avx2", Prepare::kTables, Layout::kPlane2, 16, 32, 0, TILES(lookup_nibbles, 2),
     PACKED_TABLES(2, 4, true)},
    {"nibble_tables4_avx2", Prepare::kTables, Layout::kPlane4, 8, 32, 0, TILES(lookup_nibbles, 4),
     PACKED_TABLES(4, 4, true)},
};

// Two codes and their sum lie in the first three of four bytes, the last is 0. A table entry is
// the sum of what its two low bits pick of one such quadruple and its two high bits of the next.
alignas(16) const uint8_t kLowPair[16] = {3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2};
alignas(16) const uint8_t kHighPair[16] = {7, 7, 7, 7, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6};

// The tables of eight groups, `step` bytes apart.
inline void tables(V32 q, uint8_t* out, int step) {
  const V32 low = table_at(kLowPair), high = table_at(kHighPair), eight = _mm256_set1_epi8(8);
  const V32 sums = _mm256_maddubs_epi16(q, _mm256_set1_epi8(1));
  const V32 four[2] = {_mm256_unpacklo_epi16(q, sums), _mm256_unpackhi_epi16(q, sums)};
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      const V32 to_low = j ? _mm256_add_epi8(low, eight) : low;
      const V32 to_high = j ? _mm256_add_epi8(high, eight) : high;
      const V32 both = _mm256_add_epi8(_mm256_shuffle_epi8(four[i], to_low),
                                       _mm256_shuffle_epi8(four[i], to_high));
      uint8_t* to = out + (2 * i + j) * step;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(both));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 4 * step), _mm256_extracti128_si256(both, 1));
    }
}
// Of four groups.
inline void tables(__m128i q, uint8_t* out, int step) {
  const V32 low = table_at(kLowPair), high = table_at(kHighPair), eight = _mm256_set1_epi8(8);
  const __m128i sums = _mm_maddubs_epi16(q, _mm_set1_epi8(1));
  const V32 four = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(q, sums)),
                                           _mm_unpackhi_epi16(q, sums), 1);
  for (int j = 0; j < 2; ++j) {
    const V32 to_low = j ? _mm256_add_epi8(low, eight) : low;
    const V32 to_high = j ? _mm256_add_epi8(high, eight) : high;
    const V32 both = _mm256_add_epi8(_mm256_shuffle_epi8(four, to_low),
                                     _mm256_shuffle_epi8(four, to_high));
    uint8_t* to = out + j * step;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(both));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * step), _mm256_extracti128_si256(both, 1));
  }
}

// Entry i of a group's table sums the activations whose bit of i is set.
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
  const int bytes = static_cast<int>(prepared_bytes(kind));  // of a group
  const auto nibbles = [&](auto q, auto high, auto mask, uint8_t* to) {
    tables(q & mask, to, bytes);
    tables(high & mask, to + 16, bytes);
  };
  const auto work16 = [&](__m128i q, uint8_t* to) {
    if (kind == Prepare::kRaw) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), q);
    } else if (kind == Prepare::kWide) {
      store(to, _mm256_cvtepu8_epi16(q));
    } else if (kind == Prepare::kTable) {
      tables(q, to, bytes);
    } else {
      nibbles(q, _mm_srli_epi16(q, 4), _mm_set1_epi8(15), to);
    }
  };
  int c = 0;
  if (kind == Prepare::kTable)
    for (; c + 32 <= channels; c += 32, out += 8 * bytes) tables(load(codes + c), out, bytes);
  if (kind == Prepare::kTables)
    for (; c + 32 <= channels; c += 32, out += 8 * bytes) {
      const V32 q = load(codes + c);
      nibbles(q, _mm256_srli_epi16(q, 4), _mm256_set1_epi8(15), out);
    }
  for (; c + 16 <= channels; c += 16, out += 4 * bytes)
    work16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + c)), out);
  if (c < channels) {  // padded with zeros; nothing is written past the last group
    uint8_t rest[16] = {}, last[4 * 32];
    std::memcpy(rest, codes + c, channels - c);
    work16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rest)), last);
    std::memcpy(out, last, (channels - c + 3) / 4 * bytes);
  }
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

// kForm 0: no factors; 1: factors; 2: also a coefficient and terms. Bounded numbers are limited to
// the codes after rounding, in 16 bits, which gives the same.
template <bool kSwish, int kForm, bool kBounded>
void finish_codes(const Finish& f, const int32_t* sums, size_t sum_stride, const int32_t* terms,
                  int pixels, int first, int count, uint8_t* out, size_t out_stride) {
  const __m256 low = _mm256_set1_ps(f.low), high = _mm256_set1_ps(f.high);
  const __m256 scale = _mm256_set1_ps(f.scale), sixth = _mm256_set1_ps(1.0f / 6.0f);
  const __m256 half = _mm256_set1_ps(0.5f), one = _mm256_set1_ps(1.0f);
  const V32 zero = _mm256_set1_epi16(static_cast<short>(f.zero_point));
  const V32 times = _mm256_set1_epi32(f.coefficient);
  const V32 least = _mm256_set1_epi16(static_cast<short>(f.low + static_cast<float>(f.zero_point)));
  const V32 most = _mm256_set1_epi16(static_cast<short>(f.high + static_cast<float>(f.zero_point)));
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
        if (!kBounded) v = _mm256_min_ps(_mm256_max_ps(v, low), high);
        whole[i] = _mm256_cvtps_epi32(v);
      }
      V32 words = _mm256_adds_epi16(_mm256_packs_epi32(whole[0], whole[1]), zero);
      if (kBounded) words = _mm256_min_epi16(_mm256_max_epi16(words, least), most);
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
#define FORMS(...) \
  {finish_codes<__VA_ARGS__, 0, false>, finish_codes<__VA_ARGS__, 1, false>, \
   finish_codes<__VA_ARGS__, 2, false>}
  constexpr decltype(&finish_codes<false, 0, false>) kRuns[3][3] = {
      FORMS(false), FORMS(true),
      {finish_codes<false, 0, true>, finish_codes<false, 1, true>, finish_codes<false, 2, true>}};
#undef FORMS
  const auto run = kRuns[swish ? 1 : f.bounded ? 2 : 0][form];
  run(f, sums, sum_stride, terms, pixels, first, count, static_cast<uint8_t*>(out), out_stride);
}

// Depthwise: 32 bytes of prepared columns are two taps of 16 channels, or of 8 as 16-bit numbers.
template <bool kWords>
void interleave(const uint8_t* a, size_t a_step, const uint8_t* b, size_t b_step, int pixels,
                int blocks, uint8_t* out) {
  for (int p = 0; p < pixels; ++p, a += a_step, b += b_step)
    for (int i = 0; i < blocks; ++i, out += 32) {
      const auto wide = [](const uint8_t* from) {
        return kWords ? _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)))
                      : _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
      };
      constexpr int kBlock = kWords ? 8 : 16;
      const V32 above = wide(a + i * kBlock), below = wide(b + i * kBlock);
      store(out, _mm256_or_si256(above, kWords ? _mm256_slli_epi32(below, 16)
                                               : _mm256_slli_epi16(below, 8)));
    }
}

template <int P, bool kWords>
inline void depthwise_tile(const Strip& s, int pixel, int block) {
  V32 sum[P];
  for (auto& v : sum) v = _mm256_setzero_si256();
  const uint8_t* weights = s.weights + static_cast<size_t>(block) * s.pair_count * s.columns * 32;
  int32_t* to = s.sums + pixel * s.sum_stride + block * (kWords ? 8 : 16);
  bool first = true;
  const auto flush = [&] {
    for (int p = 0; p < P; ++p) {
      int32_t* at = to + p * s.sum_stride;
      put(at, low16(sum[p]), first);
      put(at + 8, high16(sum[p]), first);
      sum[p] = _mm256_setzero_si256();
    }
    first = false;
  };
  int left = s.depth;
  for (int i = 0; i < s.pair_count; ++i) {
    const uint8_t* from[P];
    for (int p = 0; p < P; ++p) from[p] = s.pairs[i] + (pixel + p) * s.pixel_step + block * 32;
    for (int j = 0; j < s.columns; ++j, weights += 32) {
      const V32 w = load(weights);
      if (!kWords && left-- == 0) {
        flush();
        left = s.depth - 1;
      }
      for (int p = 0; p < P; ++p) {
        sum[p] = kWords ? _mm256_add_epi32(sum[p], _mm256_madd_epi16(load(from[p]), w))
                        : _mm256_add_epi16(sum[p], _mm256_maddubs_epi16(load(from[p]), w));
        from[p] += s.column_step;
      }
    }
  }
  if (kWords) {
    for (int p = 0; p < P; ++p) store(to + p * s.sum_stride, sum[p]);
  } else {
    flush();
  }
}

template <bool kWords>
void depthwise(const Strip& s) {
  for (int block = 0; block < s.blocks; ++block) {
    int p = 0;
    for (; p + 4 <= s.pixels; p += 4) depthwise_tile<4, kWords>(s, p, block);
    for (; p < s.pixels; ++p) depthwise_tile<1, kWords>(s, p, block);
  }
}

const DepthwiseKernel kDepthwise[] = {
    {"depthwise_avx2", 16, 1, 1, interleave<false>, depthwise<false>},
    {"depthwise_wide_avx2", 8, 2, 0, interleave<true>, depthwise<true>}};

Backend make() {
  Backend backend = {"avx2", {}, {}, prepare, finish, unpack, grouped_avx2, kMostBlocks, quantise_row,
                     finish_rows,
                     {quantise, sum, product, rescale, column_sums, finish_mean, maximum,
                      rows, pointwise, attend}};
  for (const DotKernel& k : kDot) backend.dot.push_back(&k);
  for (const DepthwiseKernel& k : kDepthwise) backend.depthwise.push_back(&k);
  return backend;
}

}  // namespace

const Backend* avx2_backend() {
  static const Backend backend = make();
  return &backend;
}

}  // namespace lowbit

#else

namespace lowbit {
const Backend* avx2_backend() { return nullptr; }
}  // namespace lowbit

#endif
