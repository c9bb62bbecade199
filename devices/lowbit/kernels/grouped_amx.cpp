// Grouped linear layers for x86-64 with AMX: tiles of 16 rows by 16 outputs.
#include "internal.h"

#if defined(__AVX512VNNI__) && defined(__linux__) && defined(__has_include)
#if __has_include(<amxint8intrin.h>) || __has_include(<amxintrin.h>)
#define LOWBIT_HAS_AMX
#endif
#endif

#if defined(LOWBIT_HAS_AMX)
#include <immintrin.h>

#include <cstring>

namespace lowbit {
namespace {

#include "grouped_wide.inc"

// Not by a flag, which older compilers refuse.
#define AMX __attribute__((target("amx-tile,amx-int8")))

constexpr int kTileBytes = 64;  // of a row of a tile

// Products of M tiles of rows with N blocks of a group's unpacked fields, 16 outputs each.
template <int M, int N>
AMX inline void products(const int8_t* a, size_t row_bytes, const uint8_t* u, size_t block_room, int depth,
                         int32_t* to) {
  const uint8_t* const v = u + (N - 1) * block_room;
  const int8_t* const b = a + (M - 1) * kTileRows * row_bytes;
  _tile_zero(0);
  if (N > 1) _tile_zero(1);
  if (M > 1) _tile_zero(2);
  if (M > 1 && N > 1) _tile_zero(3);
  for (int i = 0; i < depth; ++i) {
    _tile_loadd(4, a + i * kTileBytes, row_bytes);
    _tile_loadd(6, u + i * 1024, kTileBytes);
    _tile_dpbsud(0, 4, 6);
    if (N > 1) {
      _tile_loadd(7, v + i * 1024, kTileBytes);
      _tile_dpbsud(1, 4, 7);
    }
    if (M > 1) {
      _tile_loadd(5, b + i * kTileBytes, row_bytes);
      _tile_dpbsud(2, 5, 6);
    }
    if (M > 1 && N > 1) _tile_dpbsud(3, 5, 7);
  }
  _tile_stored(0, to, N * kTileBytes);
  if (N > 1) _tile_stored(1, to + 16, N * kTileBytes);
  if (M > 1) _tile_stored(2, to + 16 * N * kTileRows, N * kTileBytes);
  if (M > 1 && N > 1) _tile_stored(3, to + 16 * N * kTileRows + 16, N * kTileBytes);
}

template <int N>
AMX void add_blocks(const GroupedStep& s, int g, const __m512* scale) {
  const int depth = (s.steps + 3) / 4, rows = s.rows;
  const size_t row_bytes = s.row_bytes, room = block_room(s), stride = s.sum_stride, groups = s.groups;
  const int8_t* a = group_codes(s, g);
  const uint8_t* u = s.room;
  const float* zeros = s.zeros + g;
  float* sum = s.sums;
  __m512 by[N];
  for (int b = 0; b < N; ++b) by[b] = scale[b];
  alignas(64) int32_t to[2 * kTileRows * N * kBlockOutputs];
  for (int row = 0; row < rows; row += 2 * kTileRows, a += 2 * kTileRows * row_bytes) {
    const int many = rows - row < 2 * kTileRows ? rows - row : 2 * kTileRows;
    many > kTileRows ? products<2, N>(a, row_bytes, u, room, depth, to)
                     : products<1, N>(a, row_bytes, u, room, depth, to);
    const int32_t* from = to;
#pragma GCC unroll 4
    for (int p = 0; p < many; ++p, sum += stride, zeros += groups, from += N * kBlockOutputs) {
      const __m512 zero = _mm512_set1_ps(*zeros);
      for (int b = 0; b < N; ++b)
        add_products(_mm512_load_si512(from + b * kBlockOutputs), zero, by[b], sum + b * kBlockOutputs);
    }
  }
}

AMX void grouped(const GroupedStep& s) {
  if (s.rows < kManyRows && s.blocks == 1) return avx512_backend()->grouped(s);
  // Other libraries in this process may keep a configuration of theirs.
  alignas(64) uint8_t others[64];
  _tile_storeconfig(others);
  alignas(64) uint8_t config[64] = {1};  // the palette; bytes of a row from 16, rows from 48
  const int channels = s.steps == 2 ? 32 : 64;
  for (int t = 0; t < 8; ++t) {
    config[16 + 2 * t] = static_cast<uint8_t>(t == 4 || t == 5 ? channels : kTileBytes);
    config[48 + t] = static_cast<uint8_t>(t >= 6 ? channels / 4 : kTileRows);
  }
  _tile_loadconfig(config);
  every_part(s, [&](int g, const __m512* scale) {
    s.blocks == 2 ? add_blocks<2>(s, g, scale) : add_blocks<1>(s, g, scale);
  });
  others[0] ? _tile_loadconfig(others) : _tile_release();
}

}  // namespace

const Backend* amx_backend() {
  static const Backend backend = [] {
    Backend b = *avx512_backend();
    b.name = "amx";
    b.dot.clear();
    b.grouped = grouped;
    b.grouped_blocks = 2;  // their sums and a group's activations stay in the nearest cache
    return b;
  }();
  return &backend;
}

}  // namespace lowbit

#else

namespace lowbit {
const Backend* amx_backend() { return nullptr; }
}  // namespace lowbit

#endif
