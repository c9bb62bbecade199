// Grouped linear layers for x86-64 with AVX-512 and VNNI.
#include "internal.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>

#include <cstring>

namespace lowbit {
namespace {

#include "fields_avx2.inc"
#include "grouped_rows.inc"

#include "grouped_wide.inc"

constexpr int kRegisterRows = 6;  // their sums of four blocks, fields and activations fill 29 registers

// P rows with a group's fields of B blocks.
template <int P, int B>
void tile(const GroupedStep& s, int row, int g, const __m512* scale) {
  __m512i sum[P][B];
#pragma GCC unroll 6
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) sum[p][b] = _mm512_setzero_si512();
  const int8_t* a = group_codes(s, g) + row * s.row_bytes;
  const size_t row_bytes = s.row_bytes, apart = block_room(s);
  const uint8_t* u = s.room;
  for (const uint8_t* const end = u + apart; u < end; u += 64, a += 4) {
    __m512i w[B];
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) w[b] = _mm512_load_si512(u + b * apart);
#pragma GCC unroll 6
    for (int p = 0; p < P; ++p) {
      int32_t four;
      std::memcpy(&four, a + p * row_bytes, 4);
      const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) asm("vpdpbusd %2, %1, %0" : "+v"(sum[p][b]) : "v"(w[b]), "v"(x));
    }
  }
#pragma GCC unroll 6
  for (int p = 0; p < P; ++p) {
    const __m512 zero = _mm512_set1_ps(s.zeros[static_cast<size_t>(row + p) * s.groups + g]);
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b)
      add_products(sum[p][b], zero, scale[b], s.sums + (row + p) * s.sum_stride + b * kBlockOutputs);
  }
}

#define TILES(B) {tile<1, B>, tile<2, B>, tile<3, B>, tile<4, B>, tile<5, B>, tile<6, B>}
constexpr decltype(&tile<1, 1>) kTiles[kMostBlocks][kRegisterRows] = {TILES(1), TILES(2), TILES(3),
                                                                      TILES(4)};
#undef TILES

void many_rows(const GroupedStep& s) {
  // Of one size, give or take a row.
  const int tiles = (s.rows + kRegisterRows - 1) / kRegisterRows;
  every_part(s, [&](int g, const __m512* scale) {
    for (int i = 0; i < tiles; ++i) {
      const int row = s.rows * i / tiles, next = s.rows * (i + 1) / tiles;
      kTiles[s.blocks - 1][next - row - 1](s, row, g, scale);
    }
  });
}

}  // namespace

void grouped_avx512(const GroupedStep& s) {
  if (s.rows >= kManyRows || s.blocks > 1)
    many_rows(s);
  else
    few_rows(s);
}

}  // namespace lowbit

#endif
